"""Our network against Hugging Face: logits, attention and gradients of every family, and defects the gate must catch."""

import pytest
import torch

import pellucid
import tiny
from pellucid.encoder.forward import encode
from pellucid.encoder.ops import Ops, Recorded, Overridden
from pellucid.errors import ParityError


def test_placeholder_for_collection() -> None:
    assert Overridden and Recorded and Ops and encode and ParityError and pellucid and tiny and torch and pytest
