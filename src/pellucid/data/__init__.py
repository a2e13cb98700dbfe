"""Labelled texts to train and test on: read from files, a folder or the Hugging Face hub, checked, and split."""

from pellucid.data.corpus import Corpus, Split, read, spread
from pellucid.data.files import INSTALL

__all__ = ["INSTALL", "Corpus", "Split", "read", "spread"]
