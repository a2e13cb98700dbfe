"""Classifiers to train whose attention can be studied: attention networks, and the identifiable encoder.

They are ordinary Hugging Face models, known to the Auto classes once this package is imported; `pellucid.load` opens
them like any other.
"""

from transformers import AutoConfig, AutoModelForSequenceClassification

from pellucid.zoo.classifier import AttentionClassifierForSequenceClassification, AttentionClassifierOutput
from pellucid.zoo.configs import AttentionClassifierConfig, IdentifiableEncoderConfig
from pellucid.zoo.identifiable import IdentifiableEncoderForSequenceClassification

ZOO = {"attention": AttentionClassifierConfig, "identifiable": IdentifiableEncoderConfig}
"""Short name -> configuration class."""

for _config, _model in (
    (AttentionClassifierConfig, AttentionClassifierForSequenceClassification),
    (IdentifiableEncoderConfig, IdentifiableEncoderForSequenceClassification),
):
    AutoConfig.register(_config.model_type, _config)
    AutoModelForSequenceClassification.register(_config, _model)

__all__ = [
    "ZOO",
    "AttentionClassifierConfig",
    "AttentionClassifierForSequenceClassification",
    "AttentionClassifierOutput",
    "IdentifiableEncoderConfig",
    "IdentifiableEncoderForSequenceClassification",
]
