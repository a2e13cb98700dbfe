"""Copies of a model whose weights are random, from the head down."""

import copy
import re
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pellucid.encoder.load import load
from pellucid.encoder.model import Access, Model, at_rest, unpadded_logits
from pellucid.errors import InputError
from pellucid.types import Batch

Stage = tuple[str, list[nn.Parameter]]
"""A name and the weights that become random there."""


@torch.no_grad()
def cascade(model: Model, text: Batch, seed: int = 0) -> Iterator[tuple[str, Model]]:
    """Copies of a model that are random from the top down: the head, then the last block as well, ..., all of it.

    Every weight is drawn anew from a normal distribution with the mean and the standard deviation of its own tensor.
    That needs no knowledge of how a family begins, works for every architecture, and keeps norms, softmax and
    activations in the range they are made for; what is the same everywhere in a tensor, and so was never learnt, stays.
    `seed` fixes the draws, and what is random in one stage is the same in all later ones.

    text: see `stages_of`. Each copy is good until the next one is asked for; the model itself is not touched.
    Memory: one copy of the weights. Cost: per stage two forward passes on a short text, as at loading.
    Raises: InputError where the model cannot be copied.
    """
    hf = copy.deepcopy(model.hf)
    generator = torch.Generator().manual_seed(seed)
    for name, weights in stages_of(hf, text, model.takes):
        for p in weights:
            p.copy_(drawn_like(p, generator))
        yield name, load(hf, model.tokenizer, dtype=model.dtype, access=_lowered(model))


def stage_names(model: Model, text: Batch) -> list[str]:
    """The stages of a model's cascade, the head first."""
    return [name for name, _ in stages_of(copy.deepcopy(model.hf), text, model.takes)]


def _lowered(model: Model) -> Literal["gradients", "outputs"] | None:
    """The access that a copy of the model must be opened with to give no more than the model does."""
    if model.access == Access.OUTPUTS:
        return "outputs"
    return "gradients" if model.access == Access.GRADIENTS else None


def drawn_like(p: Tensor, generator: torch.Generator) -> Tensor:
    """Normal numbers of a tensor's shape, mean and standard deviation, in its dtype; drawn on the CPU, in float32."""
    mean, std = p.double().mean().item(), p.double().std(correction=0).item()
    return (torch.randn(p.shape, generator=generator) * std + mean).to(p)


def stages_of(hf: nn.Module, text: Batch, takes: frozenset[str]) -> list[Stage]:
    """A model's weights by stage, the top one first.

    The order in which its modules first run on a text tells what stands above what. Stages are the numbered blocks
    ("bert.encoder.layer.5"), "head" for all that runs after them and "embeddings" for all before; or single modules
    where there are no such blocks. Each weight is in one stage; those of modules that do not run are in the last one.
    """
    names = _read(hf, text, takes)
    if not names:
        raise InputError(
            f"{type(hf).__name__} cannot be randomised: a copy of it runs none of its own modules, as where its "
            "forward is wrapped around the original. Load the model itself."
        )
    modules = dict(hf.named_modules())
    left = {id(p): p for p in hf.parameters() if p.is_floating_point()}
    found: list[Stage] = []
    for unit, members in reversed(_units(names)):
        own = [id(p) for m in members for p in modules[m].parameters(recurse=False)]
        found.append((unit, [left.pop(i) for i in own if i in left]))
    found[-1][1].extend(left.values())
    return found


def _read(hf: nn.Module, text: Batch, takes: frozenset[str]) -> list[str]:
    """The modules with weights of their own, in the order in which they first run on a text."""
    order: dict[str, None] = {}
    handles = []
    for name, module in hf.named_modules():
        if next(module.parameters(recurse=False), None) is not None:
            handles.append(module.register_forward_pre_hook(lambda m, x, name=name: order.setdefault(name)))
    try:
        with at_rest(hf), torch.no_grad():
            unpadded_logits(hf, text, None, takes)
    finally:
        for handle in handles:
            handle.remove()
    return list(order)


def _units(names: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Modules in the order of reading, by unit; see `stages_of`. A block is what is numbered and holds others."""
    blocks = {i: found[0] for i, name in enumerate(names) if (found := re.match(r"(?:[^.]+\.)*?\d+(?=\.)", name))}
    units: dict[str, list[str]] = {}
    unit = "embeddings"
    for i, name in enumerate(names):
        if i in blocks or not blocks:
            unit = blocks.get(i, name)
        elif i > max(blocks):
            unit = "head"
        units.setdefault(unit, []).append(name)
    return list(units.items())
