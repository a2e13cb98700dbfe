"""The bundled demo model, its card, and twenty sentences."""
