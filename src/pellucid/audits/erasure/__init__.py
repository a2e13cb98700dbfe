"""Erasing attention: places, effects, orderings, adversaries, and the audits that ask with them."""
