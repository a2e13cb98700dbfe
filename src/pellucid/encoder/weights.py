"""The weights of a Hugging Face model under their plain names, and a fingerprint that notices when they change."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from pellucid.errors import UnsupportedModel

SAMPLE = 64
T = TypeVar("T")


def _sample(t: Tensor) -> Tensor:
    flat = t.detach().flatten()
    return flat[:: max(1, flat.numel() // SAMPLE)].clone()


def _version(t: Tensor) -> int:
    return 0 if t.is_inference() else t._version


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """Identity, version counter and a strided sample of every parameter, taken at `load`.

    A replaced tensor and any in-place change through autograd-visible calls (optimisers, `load_state_dict`, `add_`) are
    noticed by identity and version; changes behind autograd's back (`p.data.add_`) by the sample of 64 values.
    """

    hf: nn.Module
    seen: dict[str, tuple[int, int, Tensor]]

    @classmethod
    def of(cls, hf: nn.Module) -> "Fingerprint":
        """Take the fingerprint; cost: 64 values per parameter."""
        return cls(hf, {k: (p.data_ptr(), _version(p), _sample(p)) for k, p in hf.named_parameters()})

    def difference(self, hf: nn.Module) -> str:
        """What changed, in words; "" for nothing."""
        now = dict(hf.named_parameters())
        if now.keys() != self.seen.keys():
            return "parameters were added or removed"
        for name, p in now.items():
            pointer, version, sample = self.seen[name]
            if p.data_ptr() != pointer:
                return f"{name} was replaced"
            if _version(p) != version or not torch.equal(_sample(p), sample):
                return f"{name} was changed in place"
        return ""

    @cached_property
    def sha256(self) -> str:
        """The first 16 hex digits of a SHA-256 over all names, shapes and bytes; about 1 s per GB, once."""
        h = hashlib.sha256()
        for name, p in sorted(self.hf.named_parameters()):
            h.update(f"{name}{tuple(p.shape)}{p.dtype}".encode())
            h.update(p.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return h.hexdigest()[:16]


def first_bad(hf: nn.Module) -> str | None:
    """The first parameter that holds a NaN or an infinity."""
    for name, p in hf.named_parameters():
        if p.is_floating_point() and not bool(torch.isfinite(p.detach()).all()):
            return name
    return None


def _active(module: nn.Module) -> str:
    """Which copy of a module that an adapter has replaced is in use."""
    if getattr(module, "disable_adapters", False) is True:
        return "original_module"
    name = getattr(module, "active_adapter", None) or next(iter(cast(Iterable[str], module.modules_to_save)))
    return f"modules_to_save.{name[0] if isinstance(name, list) else name}"


def plain_state(hf: nn.Module) -> dict[str, Tensor]:
    """All weights under the names of a model without wrappers, shared, not copied.

    Adapters that are merged stand in the weights themselves, so their own tensors are left out; one that is not merged
    is refused, because it is not part of any single weight.
    """
    for name, module in hf.named_modules():
        adapter = hasattr(module, "base_layer") and hasattr(module, "merged")
        if adapter and not module.merged and not getattr(module, "disable_adapters", False):
            raise UnsupportedModel(
                f"The adapter at {name!r} is not merged into its weights; call model.merge_and_unload() (or "
                "merge_adapter()) first, then load the result."
            )
    saved = {
        name: _active(module)
        for name, module in hf.named_modules()
        if hasattr(module, "modules_to_save") and hasattr(module, "original_module")
    }
    active = {f"{name}.{adapter}.": f"{name}." for name, adapter in saved.items()}
    out: dict[str, Tensor] = {}
    for key, value in hf.state_dict(keep_vars=True).items():
        if any(part.startswith("lora_") for part in key.split(".")):
            continue
        trained = next((old for old in active if key.startswith(old)), None)
        if trained is not None:
            key = active[trained] + key[len(trained) :]
        elif any(key.startswith(f"{name}.") for name in saved):
            continue  # a copy of that module that is not the one in use
        out[key.replace(".base_layer.", ".")] = value.detach()
    return out


def refuse_quantised(hf: nn.Module) -> None:
    """Refuse weights that are not plain floating-point tensors, by the name of what stores them."""
    method = getattr(hf, "quantization_method", None)
    config = getattr(getattr(hf, "config", None), "quantization_config", None)
    name = None
    if method is not None or config is not None:
        declared = config.get("quant_method") if isinstance(config, dict) else None
        name = str(getattr(method, "value", method) or declared or type(config).__name__)
    for module in hf.modules():
        if "quantized" in type(module).__module__ or type(module).__module__.startswith("bitsandbytes"):
            name = f"{type(module).__module__}.{type(module).__name__}"
    if name is not None:
        raise UnsupportedModel(
            f"This model is quantised ({name}): its weights are not numbers that can be shared. Load it without "
            "quantisation, in float32 or bfloat16."
        )
    if any(p.device.type == "meta" for p in hf.parameters()):
        raise UnsupportedModel(
            'Some weights of this model are not in memory (device "meta": offloaded or not loaded yet). Load it whole '
            "onto one device, without device_map."
        )
    devices = {p.device for p in hf.parameters()}
    if len(devices) > 1:
        raise UnsupportedModel(f"This model is spread over {sorted(map(str, devices))}; move it to one device.")


def in_dtype(table: T, dtype: torch.dtype) -> T:
    """A table of weights (a Net, a Layer, a Linear) with its floating-point tensors in another dtype; a copy."""
    if isinstance(table, Tensor):
        return table.to(dtype) if table.is_floating_point() else table  # type: ignore[return-value]
    if isinstance(table, tuple):
        return tuple(in_dtype(x, dtype) for x in table)  # type: ignore[return-value]
    if is_dataclass(table) and not isinstance(table, type):
        return replace(table, **{f.name: in_dtype(getattr(table, f.name), dtype) for f in fields(table)})
    return table
