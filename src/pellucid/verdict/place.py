"""The attention that a verdict is about: that of the last layer, or what pools the states."""

from pellucid.encoder.forward import read_rows
from pellucid.encoder.model import Access, Model
from pellucid.types import Batch


def place_of(model: Model, whole: Batch) -> tuple[str, str]:
    """The place that the verdict is about: in a sentence, and with the rows whose attention is read."""
    if model.access < Access.READOUT:
        return "its last layer", "not visible"
    if model.net is None:
        return "the pooling layer", "the attention that pools the states"
    layers, mean = len(model.net.layers), read_rows(model.net, whole.keep) is None
    rows = (
        "from all rows, over which the classifier takes the mean" if mean else "from the row that the classifier reads"
    )
    return f"layer {layers}", f"layer {layers} of {layers}, {rows}"
