"""Opening a classifier: the Hugging Face model is loader and oracle, its weights are what we build on."""

import copy
import inspect
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from pellucid.encoder import forward
from pellucid.encoder.forward import Net
from pellucid.encoder.model import Access, Model, at_rest, hf_logits, unpadded_logits
from pellucid.encoder.ops import Ops
from pellucid.encoder.pooled import Pooled, pooling
from pellucid.encoder.weights import Fingerprint, first_bad, plain_state, refuse_quantised
from pellucid.errors import InputError, ParityError, UnsupportedModel
from pellucid.families import FAMILIES
from pellucid.families.table import Weights
from pellucid.types import Batch

TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4, torch.float16: 3e-2, torch.bfloat16: 2e-1}
"""Largest relative difference of logits that `load` accepts, by the dtype in which the Hugging Face model runs.

From the largest seen in sound models (docs/LOG.md, 2026-11-21): 5e-7, 3e-6, 1e-2 and 4e-2. In float64 that is
ModernBERT, whose rotary angles Hugging Face takes in float32. Half-precision models are compared in float32 as well."""


def load(
    source: str | Path | nn.Module,
    tokenizer: Any = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    access: Literal["gradients", "outputs"] | None = None,
) -> Model:
    """Open a text classifier and check that our network gives its logits.

    source: a hub name, a local folder, or a Hugging Face model object, which is shared and left as it is found.
    tokenizer: a tokenizer object or its name; by default the one stored with a name or folder.
    dtype: None opens a name or folder in float32, whatever its configuration says, and keeps a model object's own; the
      decomposition computes in at least float32.
    access: lower the access on purpose, for a model whose network is refused.

    Returns a `Model`; its `parity` is the largest relative difference of logits on a probe batch with padding.
    Raises: InputError (no such model), UnsupportedModel (a configuration field or storage that is not implemented,
    by name), ParityError (with the number).
    Cost: reading the weights, one forward pass of the Hugging Face model and one of ours.
    """
    if access not in (None, "gradients", "outputs"):
        raise InputError(f"load has no access={access!r}; choose None, 'gradients' or 'outputs'.")
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype in TOLERANCE):
        raise InputError(f"load takes dtype float32, float64, bfloat16 or float16 of torch; seen {dtype!r}.")
    if device is not None:
        _check_device(device)
    kinds = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    with ExitStack() as stack:  # the caller's inference mode or autocast must not reach the weights and the comparison
        stack.enter_context(torch.inference_mode(False))
        for kind in kinds:
            stack.enter_context(torch.autocast(kind, enabled=False))
        return _load(source, tokenizer, device, dtype, access)


def _load(
    source: str | Path | nn.Module,
    tokenizer: Any,
    device: str | torch.device | None,
    dtype: torch.dtype | None,
    access: str | None,
) -> Model:
    if isinstance(source, (str, Path)):
        hf, tokenizer = _open(str(source), tokenizer, device, dtype)
    else:
        hf = unwrap(source)
        tokenizer = _tokenizer(tokenizer) if isinstance(tokenizer, (str, Path)) else tokenizer
    _check_object(hf, device)
    own = next(p.dtype for p in hf.parameters() if p.is_floating_point())
    wanted = own if dtype is None or isinstance(source, (str, Path)) else dtype
    compute = torch.promote_types(wanted, torch.float32)
    config: Any = hf.config
    takes = frozenset(inspect.signature(hf.forward).parameters)
    known = config.model_type in FAMILIES
    probe = probe_batch(config, _reach(config), "token_type_ids" in takes)
    theirs = _oracle(hf, probe, takes, padded=known)
    if theirs.dim() != 2 or theirs.shape[0] != len(probe):
        raise UnsupportedModel(
            f"{type(hf).__name__} gives logits of shape {list(theirs.shape)} for {len(probe)} texts; Pellucid explains "
            "sequence classifiers, whose logits are [texts, classes]."
        )
    vectors = (known and access != "outputs") or _reads_vectors(hf, probe, theirs, takes)
    built, level, lost = _rebuild(hf, config, compute, access, vectors)
    parity = None if built is None else _checked(built, hf, probe, theirs, takes, own)
    if isinstance(built, Net) and own in (torch.float16, torch.bfloat16):
        _check_in_full(built, hf, probe, takes, compute)
    return Model(
        hf=hf,
        tokenizer=tokenizer,
        family="unknown" if built is None else config.model_type,
        access=level,
        labels=_labels(config, theirs.shape[1]),
        problem=_problem(config, theirs.shape[1]),
        limit=limit_of(hf, tokenizer),
        net=built if isinstance(built, Net) else None,
        pooled=built if isinstance(built, Pooled) else None,
        parity=parity,
        fingerprint=Fingerprint.of(hf),
        id=str(source) if isinstance(source, (str, Path)) else config.name_or_path or type(hf).__name__,
        dtype=compute,
        device=next(hf.parameters()).device,
        takes=takes,
        lost=lost,
    )


def _check_device(device: str | torch.device) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as e:
        raise InputError(f"device={str(device)!r} cannot be used here: {_first_line(e)}") from e


def unwrap(model: Any) -> nn.Module:
    """The Hugging Face model inside torch.compile, data-parallel and adapter wrappers."""
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod
        elif isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif hasattr(model, "peft_config") and hasattr(model, "get_base_model"):
            for settings in model.peft_config.values():
                if getattr(settings, "is_prompt_learning", False):
                    kind = getattr(settings, "peft_type", "prompt")
                    raise UnsupportedModel(
                        f"This model reads a learned prompt ({getattr(kind, 'value', kind)}) with each text, which is "
                        "no part of its weights; only adapters that merge into weights are supported."
                    )
            model = model.get_base_model()
        else:
            return model  # type: ignore[no-any-return]


def _tokenizer(name: str | Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(name))
    except (OSError, ValueError, KeyError) as e:
        raise InputError(f"No tokenizer could be read from {str(name)!r}: {_first_line(e)}") from e


def _has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer: transformers 5 makes one up, of five tokens, where there is none."""
    names = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "spm.model", "sentencepiece.bpe.model")
    return not folder.is_dir() or any((folder / n).exists() for n in (*names, "tokenizer.model", "bpe.codes"))


def _first_line(e: BaseException) -> str:
    return (str(e).strip().splitlines() or [type(e).__name__])[0]


def _open(
    name: str, tokenizer: Any, device: str | torch.device | None, dtype: torch.dtype | None
) -> tuple[nn.Module, Any]:
    """A model by name or folder, in evaluation mode; refuses one whose classification head was never trained."""
    from transformers import AutoModelForSequenceClassification

    folder = Path(name)
    if folder.is_dir() and not (folder / "config.json").exists():
        raise InputError(f"The folder {name!r} has no config.json, so it holds no Hugging Face model.")
    if not folder.exists() and (folder.is_absolute() or name.startswith(".") or name.count("/") > 1):
        raise InputError(f"There is no folder {name!r}.")
    for family in FAMILIES:
        if family.module is not None:
            import_module(family.module)
    try:
        hf, info = AutoModelForSequenceClassification.from_pretrained(
            name, dtype=dtype or torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as e:
        raise InputError(f"No classifier could be opened from {name!r}: {_first_line(e)}") from e
    missing = sorted(info["missing_keys"])
    if missing:
        raise UnsupportedModel(
            f"{name!r} lacks {len(missing)} weights of a {type(hf).__name__} ({', '.join(missing[:4])}): they would be "
            "random. Is this a model that was fine-tuned as a classifier?"
        )
    if not isinstance(tokenizer, (str, Path)) and tokenizer is not None:
        given = tokenizer
    else:
        given = _tokenizer(tokenizer or name) if tokenizer or _has_tokenizer(folder) else None
    hf = hf.eval()
    return (hf if device is None else hf.to(device)), given


def _check_object(hf: nn.Module, device: str | torch.device | None) -> None:
    if not hasattr(hf, "config") or not hasattr(hf.config, "model_type"):
        raise InputError(
            f"load takes a model name, a folder or a Hugging Face model; {type(hf).__name__} has no Hugging Face "
            "configuration."
        )
    refuse_quantised(hf)
    if device is not None:
        there, asked = next(hf.parameters()).device, torch.device(device)
        if there.type != asked.type or (asked.index is not None and asked.index != there.index):
            raise InputError(
                f"device={str(device)!r} was asked for, but this model object is on {str(there)!r}; move it with "
                "model.to(...) first: Pellucid does not move objects it is given."
            )
    bad = first_bad(hf)
    if bad is not None:
        raise UnsupportedModel(f"The weight {bad!r} holds NaN or infinite values; no explanation of it can be right.")


def _rebuild(
    hf: nn.Module, config: Any, compute: torch.dtype, access: str | None, vectors: bool
) -> tuple[Net | Pooled | None, Access, str]:
    """Our network, or what follows its last attention, and the level of access; the sentence tells what is lost below
    ENCODER."""
    lower = Access.GRADIENTS if vectors and access != "outputs" else Access.OUTPUTS
    kind = config.model_type
    what = "the decomposition, and the methods that read attention, are out of reach"
    what += "." if lower == Access.GRADIENTS else "; so are gradients."
    if access is not None:
        return None, lower, f"Access was lowered to {access!r} when it was loaded, so {what}"
    if kind not in FAMILIES:
        known = ", ".join(FAMILIES.names())
        return None, lower, f"Its architecture {kind!r} is not one that Pellucid rebuilds ({known}), so {what}"
    family = FAMILIES.get(kind)
    family.check(config)
    state = {k: _usable(v, compute) for k, v in plain_state(hf).items()}
    built = family.build(Weights(state), config)
    if isinstance(built, Net):
        return built, Access.ENCODER, ""
    return built, Access.READOUT, "Its last attention and what follows are rebuilt, the layers below are not."


def _usable(v: Tensor, compute: torch.dtype) -> Tensor:
    """The tensor itself where its dtype allows; a tensor born in inference mode cannot join a backward pass: copied."""
    if v.is_inference():
        v = v.clone()
    return v.to(compute) if v.is_floating_point() else v


def _reach(config: Any) -> int:
    if config.model_type not in FAMILIES:
        longest = getattr(config, "max_position_embeddings", None)
        return min(24, longest) if isinstance(longest, int) and longest > 0 else 24
    family = FAMILIES.get(config.model_type)
    return min(family.reach(config), family.limit(config) or family.reach(config))


def probe_batch(config: Any, n: int, typed: bool) -> Batch:
    """Two texts of random ordinary ids, n long, one of them padded, with both token types if the model takes them.

    Always the same ones.
    """
    names = ("pad", "cls", "sep", "bos", "eos", "mask", "unk")
    special = {str(getattr(config, f"{name}_token_id", None)) for name in names}
    size = min(getattr(config, "vocab_size", None) or 200, 20_000)
    vocabulary = [i for i in range(2, size) if str(i) not in special] or [0]
    chosen = torch.randint(len(vocabulary), (2, n), generator=torch.Generator().manual_seed(20_23))
    ids = torch.tensor(vocabulary)[chosen]
    keep = torch.ones(2, n, dtype=torch.bool)
    keep[1, max(1, n - 5) :] = False
    pad = getattr(config, "pad_token_id", None)
    ids[~keep] = 0 if pad is None else pad
    end = getattr(config, "eos_token_id", None)
    if isinstance(end, int) and 0 <= end < size and end != pad:  # some heads read where the text ends
        ids[torch.arange(2), keep.sum(-1) - 1] = end
    types = torch.zeros_like(ids)
    if typed and (getattr(config, "type_vocab_size", None) or 0) > 1:
        types[:, n // 2 :] = 1
    return Batch(ids, keep, types if typed else None)


def _oracle(hf: nn.Module, probe: Batch, takes: frozenset[str], padded: bool) -> Tensor:
    """The model's own logits on the probe.

    A row that Hugging Face turns into NaN by its padding alone (ModernBERT, eager, float64: the softmax of a fully
    masked row in float32) is asked for again without padding, as all rows are of an architecture that is not rebuilt.
    """
    probe = probe.to(next(hf.parameters()).device)
    types = probe.token_type_ids
    try:
        with torch.no_grad(), at_rest(hf):
            if not padded:
                return unpadded_logits(hf, probe, None, takes)
            y = hf_logits(hf, input_ids=probe.input_ids, attention_mask=probe.keep.long(), token_type_ids=types)
            for i in range(len(probe)):
                if y.dim() == 2 and not bool(torch.isfinite(y[i]).all()):
                    y[i] = unpadded_logits(hf, probe.rows([i]), None, takes)[0]
            return y
    except (AttributeError, ValueError, TypeError, KeyError, RuntimeError, IndexError) as e:
        raise UnsupportedModel(
            f"{type(hf).__name__} returns no logits for a batch of token ids ({_first_line(e)}); load a "
            "...ForSequenceClassification model."
        ) from e


def _reads_vectors(hf: nn.Module, probe: Batch, theirs: Tensor, takes: frozenset[str]) -> bool:
    """Whether the model gives the same logits from its word embeddings as from ids: what gradients need."""
    probe = probe.to(theirs.device)
    try:
        with torch.no_grad(), at_rest(hf):
            table: Any = hf.get_input_embeddings()  # type: ignore[operator]
            y = unpadded_logits(hf, probe, table(probe.input_ids), takes)
        return bool(torch.allclose(y, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max())))
    except (NotImplementedError, AttributeError, ValueError, TypeError, KeyError, RuntimeError, IndexError):
        return False  # it takes no vectors, or wants other arguments beside them


def _checked(
    built: Net | Pooled, hf: nn.Module, probe: Batch, theirs: Tensor, takes: frozenset[str], own: torch.dtype
) -> float:
    """The parity of what was rebuilt; ParityError above the tolerance."""
    if isinstance(built, Net):
        return _parity(built, probe, theirs, own)
    with at_rest(hf):
        return _within(pooling(hf, built, probe.to(theirs.device), takes).logits, theirs, own)


def _parity(net: Net, probe: Batch, theirs: Tensor, own: torch.dtype) -> float:
    """How far our network's logits are from theirs."""
    probe = probe.to(theirs.device)
    with torch.no_grad():
        x = forward.embed(net, probe.input_ids, probe.token_type_ids)
        ours = forward.encode(Ops(), net, x, probe.keep)
    return _within(ours, theirs, own)


def _within(ours: Tensor, theirs: Tensor, own: torch.dtype) -> float:
    """The largest difference relative to the largest logit of theirs; ParityError above the tolerance."""
    difference = (ours - theirs.to(ours.dtype)).abs().max().item()
    largest = theirs.abs().max().item()
    parity = difference / max(largest, 1e-6)
    if not parity <= TOLERANCE[own]:
        raise ParityError(
            f"Our network and this model's own forward differ by {difference:.1e} on logits of up to {largest:.1e} "
            f"(relative {parity:.1e}; {TOLERANCE[own]:.0e} is accepted in {own}): it has something that Pellucid does "
            'not implement, so no decomposition of it would be right. Load it with access="gradients" for the methods '
            "that need only gradients or outputs."
        )
    return parity


def _check_in_full(net: Net, hf: nn.Module, probe: Batch, takes: frozenset[str], compute: torch.dtype) -> None:
    """Half precision hides small defects: compare again with a copy of the model in our dtype, which is then dropped.

    Buffers such as rotary frequencies are made anew in the copy, or it would keep them rounded. A copy that cannot run,
    because its forward is wrapped around the original, leaves the comparison in half precision alone.
    """
    twin = copy.deepcopy(hf).to(compute)
    if any(b.is_floating_point() for b in twin.buffers()):
        made = dict(type(hf)(hf.config).named_buffers())
        with torch.no_grad():
            for name, b in twin.named_buffers():
                if b.is_floating_point() and name in made:
                    b.copy_(made[name])
    try:
        theirs = _oracle(twin, probe, takes, padded=True)
    except UnsupportedModel:
        return
    _parity(net, probe, theirs, compute)


def _labels(config: Any, classes: int) -> tuple[str, ...]:
    names = {int(k): str(v) for k, v in (getattr(config, "id2label", None) or {}).items()}
    return tuple(names.get(i, f"LABEL_{i}") for i in range(classes))


def _problem(config: Any, classes: int) -> str:
    declared = getattr(config, "problem_type", None)
    if declared == "multi_label_classification":
        return "multi_label"
    return "regression" if declared == "regression" or classes == 1 else "single_label"


def limit_of(hf: nn.Module, tokenizer: Any) -> int | None:
    """The longest input in tokens: the least of what the tokenizer, the family and the table of positions say."""
    config: Any = hf.config
    limits = [getattr(tokenizer, "model_max_length", None)]
    family = FAMILIES.get(config.model_type) if config.model_type in FAMILIES else None
    limits.append(getattr(config, "max_position_embeddings", None) if family is None else family.limit(config))
    if family is None:
        for name, table in hf.named_modules():  # positions numbered from the padding id, as RoBERTa's kin do
            if "position" in name and isinstance(table, nn.Embedding) and table.padding_idx is not None:
                limits.append(table.num_embeddings - table.padding_idx - 1)
    found = [int(x) for x in limits if x is not None and 0 < x < 1_000_000]
    return min(found) if found else None
