"""Opening models: what is accepted, what is unwrapped, what is refused and by which name; nothing is touched."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jaxtyping
import numpy as np
import pytest
import tiny
import torch
import transformers as tf
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor, nn
from torch.nn.utils import prune

import pellucid
from pellucid import Access, Batch
from pellucid.errors import InputError, ModelChanged, ParityError, PellucidError, UnsupportedModel

DEMO = Path(pellucid.__file__).parent / "demo"
TEXT = Batch(torch.arange(5, 12)[None])
BERT = tiny.FAMILIES["bert"][1]


def bert(dtype: torch.dtype = torch.float64, **over: Any) -> nn.Module:
    """A tiny BERT of one's own, for tests that change it."""
    return tiny.build("bert", dtype, "eager", **over)


def logits(hf: nn.Module, batch: Batch = TEXT) -> Tensor:
    """Hugging Face's own output for texts of one length."""
    with torch.no_grad():
        return hf(input_ids=batch.input_ids, return_dict=True).logits


def state(hf: nn.Module) -> dict[str, Any]:
    """Everything about a model that opening it must not change."""
    seen: dict[str, Any] = {k: (v.dtype, v.double().tolist()) for k, v in hf.state_dict().items()}
    seen |= {f"{k}!": (p._version, p.data_ptr(), p.requires_grad, p.grad is None) for k, p in hf.named_parameters()}
    seen |= {f"{k}?": (m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for k, m in hf.named_modules()}
    config = {
        k: v for k, v in hf.config.to_dict().items() if k != "reference_compile"
    }  # ModernBERT's own forward sets it
    return seen | {"config": config, "attention": hf.config._attn_implementation}


# --- names and folders


@pytest.fixture(autouse=True)
def _as_for_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals are for people, who have no annotations executed."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.parametrize("source", [DEMO, str(DEMO)], ids=["path", "text"])
def test_a_folder_opens_with_its_tokenizer_in_float32_and_in_evaluation_mode(source: str | Path) -> None:
    model = pellucid.load(source)
    assert (model.family, model.access, model.id, model.dtype) == ("bert", Access.ENCODER, str(DEMO), torch.float32)
    assert model.labels == ("negative", "positive")
    assert model.parity < 1e-5
    assert not any(m.training for m in model.hf.modules())
    assert pellucid.explain(model, "a fine film").tokens[2].text == "fine"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float16 classifier without a tokenizer."""
    path = tmp_path_factory.mktemp("models") / "float16"
    bert(torch.float16).save_pretrained(path)
    return path


def test_a_folder_stored_in_float16_opens_in_float32_or_as_asked(folder: Path) -> None:
    assert json.loads((folder / "config.json").read_text()).get("dtype", "float16") == "float16"
    for asked, stored, computed in (
        (None, torch.float32, torch.float32),
        (torch.float64, torch.float64, torch.float64),
        (torch.bfloat16, torch.bfloat16, torch.float32),
    ):
        model = pellucid.load(folder, dtype=asked)
        assert {p.dtype for p in model.hf.parameters()} == {stored}
        assert model.dtype == computed
        assert abs(pellucid.explain(model, TEXT)[0].gap) < 1e-5


def test_a_folder_without_tokenizer_reads_token_ids_only(folder: Path) -> None:
    """Recent transformers make up a tokenizer that knows no words: its explanation would be of [UNK] [UNK] [UNK]."""
    model = pellucid.load(folder)
    assert model.tokenizer is None
    assert pellucid.explain(model, TEXT)[0].tokens[0].text == "[5]"
    with pytest.raises(InputError, match=r"no tokenizer.*tokenizer=|tokenizer.*Batch"):
        pellucid.explain(model, "a fine film")


def test_a_tokenizer_for_other_words_is_refused(folder: Path) -> None:
    model = pellucid.load(folder, tokenizer=str(DEMO))
    with pytest.raises(InputError, match=r"token id .* ids 0 to 59"):
        pellucid.explain(model, "a fine film")


def _config(**fields: object) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(config | fields))

    return change


def _weights(keep: float) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        data = (path / "model.safetensors").read_bytes()
        (path / "model.safetensors").write_bytes(data[: int(len(data) * keep)])

    return change


BROKEN: dict[str, tuple[Callable[[Path], object], type[PellucidError], str]] = {
    "no configuration": (lambda p: (p / "config.json").unlink(), InputError, "no config.json"),
    "no folder": (shutil.rmtree, InputError, "There is no folder"),
    "no weights": (lambda p: (p / "model.safetensors").unlink(), InputError, "model.safetensors"),
    "half the weights": (_weights(0.5), InputError, "No classifier could be opened"),
    "no JSON": (lambda p: (p / "config.json").write_text("{"), InputError, "JSON"),
    "a list": (lambda p: (p / "config.json").write_text("[]"), InputError, "No classifier could be opened"),
    "unknown type": (_config(model_type="xyz"), InputError, "xyz"),
    "for images": (_config(model_type="vit"), InputError, "ViTConfig"),
    "another width": (_config(intermediate_size=48), InputError, "No classifier could be opened.*(size|shape)"),
    "a layer more": (_config(num_hidden_layers=4), UnsupportedModel, r"lacks 16 weights .*bert\.encoder\.layer\.3"),
    "unknown activation": (_config(hidden_act="zorp"), InputError, "zorp"),
    "foreign activation": (_config(hidden_act="mish"), UnsupportedModel, "hidden_act='mish'"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_is_refused_in_one_sentence(case: str, folder: Path, tmp_path: Path) -> None:
    change, kind, words = BROKEN[case]
    path = tmp_path / "model"
    shutil.copytree(folder, path)
    change(path)
    with pytest.raises(kind, match=words) as refusal:
        pellucid.load(path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("kind", ["BertModel", "BertForMaskedLM"])
def test_a_folder_whose_head_was_never_trained_is_refused(kind: str, tmp_path: Path) -> None:
    getattr(tf, kind)(tf.BertConfig(**BERT)).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModel, match=r"lacks \d weights .*classifier\.weight.*fine-tuned"):
        pellucid.load(tmp_path)


@pytest.mark.parametrize("name", ["nobody/no-such-model", "no-such-model", "not a name!", "./none", "a/b/c"])
def test_a_name_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=name):
        pellucid.load(name)


def test_without_a_network_a_name_is_refused_in_one_sentence() -> None:
    """One sentence that names what was asked for; the half minute that it takes is the hub client's own."""
    code = """
import pellucid
from pellucid.errors import InputError
pellucid.Batch, pellucid.load
from transformers import AutoModelForSequenceClassification
try:
    pellucid.load("nobody/no-such-model")
except InputError as e:
    print(e)
"""
    environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE" and not k.lower().endswith("_proxy")}
    environment |= {"HF_ENDPOINT": "http://127.0.0.1:9", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert "nobody/no-such-model" in done.stdout, done.stderr
    assert len(done.stdout.splitlines()) == 1


# --- model objects


def test_loading_leaves_every_model_as_it_was(family: str) -> None:
    hf = tiny.build(family).train()
    next(hf.children()).eval()
    next(hf.parameters()).requires_grad_(False)
    before = state(hf)
    model = pellucid.load(hf)
    assert state(hf) == before
    assert model.hf is hf
    assert model.net.head.out.w.data_ptr() in {p.data_ptr() for p in hf.parameters()}, "weights are copied"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_an_object_in_half_precision_stays_so_and_is_decomposed_in_float32(dtype: torch.dtype) -> None:
    hf = bert(dtype)
    before = state(hf)
    model = pellucid.load(hf)
    assert (model.dtype, state(hf)) == (torch.float32, before)
    assert 0 < model.parity < (0.1 if dtype == torch.bfloat16 else 0.02)
    a = pellucid.explain(model, TEXT)[0]
    assert abs(a.gap) < 1e-5
    assert a.origin["parity"] == model.parity
    assert a.explained == pytest.approx(logits(hf)[0].max().item(), abs=0.1)


def test_gradients_at_the_words_of_a_half_precision_object_are_taken_in_float32() -> None:
    half = pellucid.load(bert(torch.bfloat16))
    single = pellucid.load(bert(torch.bfloat16).float())
    for method in (pellucid.methods.Gradient(at="word"), pellucid.methods.IntegratedGradients(at="word")):
        scores = [pellucid.explain(m, TEXT, method, target="all")[0].scores for m in (half, single)]
        np.testing.assert_allclose(*scores, rtol=1e-4, atol=1e-5)


def test_a_half_precision_object_whose_forward_is_wrapped() -> None:
    """As accelerate's hooks do it: the wrapper holds on to the module itself, so that a copy would run the original."""
    hf = bert(torch.bfloat16)
    inner = hf.classifier.forward
    hf.classifier.forward = lambda x: inner(x)
    assert pellucid.load(hf).parity < 0.1


def test_float64_for_an_object_in_float32_leaves_it_alone() -> None:
    hf = bert(torch.float32)
    before = state(hf)
    model = pellucid.load(hf, dtype=torch.float64)
    assert (model.dtype, state(hf)) == (torch.float64, before)
    assert 0 < model.parity < 1e-5
    assert abs(pellucid.explain(model, TEXT)[0].gap) < 1e-12


def compiled(*args: object) -> object:
    """A compiler that must never run."""
    raise AssertionError("the model was compiled")


def _in_place(hf: nn.Module) -> nn.Module:
    hf.compile(backend=compiled)
    return hf


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "torch.compile": lambda hf: torch.compile(hf, backend=compiled),
    "compile in place": _in_place,
    "DataParallel": nn.DataParallel,
    "both": lambda hf: nn.DataParallel(torch.compile(hf, backend=compiled)),
    "the other way round": lambda hf: torch.compile(nn.DataParallel(hf), backend=compiled),
}


@pytest.mark.parametrize("access", [None, "gradients"])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_are_opened_and_nothing_is_compiled(wrapper: str, access: Any) -> None:
    hf = bert()
    expected = logits(hf)[0].numpy()
    model = pellucid.load(WRAPPERS[wrapper](hf), access=access)
    for method in ("gradient_x_input", "leave_one_out_delete"):
        a = pellucid.explain(model, TEXT, method, target="all")[0]
        np.testing.assert_allclose(a.explained, expected, rtol=1e-9)


class Adapted(nn.Module):
    """What a low-rank adapter looks like: its own weights beside those of the layer, in which they may be merged."""

    def __init__(self, layer: nn.Linear, merged: bool) -> None:
        super().__init__()
        self.base_layer, self.merged, self.disable_adapters = layer, merged, False
        self.lora_A = nn.ModuleDict({"default": nn.Linear(layer.in_features, 2, bias=False)}).to(layer.weight.dtype)
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, layer.out_features, bias=False)}).to(layer.weight.dtype)
        if merged:
            layer.weight.data += self.lora_B["default"].weight.data @ self.lora_A["default"].weight.data

    def forward(self, x: Tensor) -> Tensor:
        y = self.base_layer(x)
        return y if self.merged or self.disable_adapters else y + self.lora_B["default"](self.lora_A["default"](x))


class Saved(nn.Module):
    """A module that was trained beside an adapter: one copy for each adapter, and the untrained original."""

    def __init__(self, module: nn.Linear, active: str, disabled: bool = False) -> None:
        super().__init__()
        copies = {
            name: nn.Linear(*reversed(module.weight.shape)).to(module.weight.dtype) for name in ("first", "second")
        }
        self.original_module, self.modules_to_save = module, nn.ModuleDict(copies)
        self.active_adapter, self.active_adapters, self.disable_adapters = active, [active], disabled

    def forward(self, x: Tensor) -> Tensor:
        return self.original_module(x) if self.disable_adapters else self.modules_to_save[self.active_adapter](x)


def adapted(merged: bool = True, active: str = "first", disabled: bool = False) -> nn.Module:
    """A classifier with an adapter on one projection and a head of its own."""
    hf = bert()
    inside = hf.bert.encoder.layer[1].attention.self
    inside.value = Adapted(inside.value, merged)
    inside.value.disable_adapters = disabled
    hf.classifier = Saved(hf.classifier, active, disabled)
    return hf


class Peft(nn.Module):
    """The outermost wrapper of an adapter."""

    def __init__(self, hf: nn.Module, prompt: bool = False) -> None:
        super().__init__()
        self.base_model = hf
        self.peft_config = {"default": SimpleNamespace(is_prompt_learning=prompt, peft_type="PREFIX_TUNING")}

    def get_base_model(self) -> nn.Module:
        return self.base_model


@pytest.mark.parametrize("active", ["first", "second"])
@pytest.mark.parametrize("wrapped", [True, False])
def test_a_merged_adapter_is_opened_with_the_head_that_is_active(active: str, wrapped: bool) -> None:
    hf = adapted(active=active)
    model = pellucid.load(Peft(hf) if wrapped else hf)
    assert model.parity < 1e-9
    a = pellucid.explain(model, TEXT, target="all")[0]
    np.testing.assert_allclose(a.explained, logits(hf)[0].numpy(), rtol=1e-9)
    hf.classifier.modules_to_save[active].weight.data.add_(1.0)
    with pytest.raises(ModelChanged, match=rf"classifier\.modules_to_save\.{active}\.weight"):
        pellucid.explain(model, TEXT)


def test_an_adapter_that_is_switched_off_is_left_out() -> None:
    hf = adapted(merged=False, disabled=True)
    model = pellucid.load(hf)
    np.testing.assert_allclose(model.logits(TEXT).numpy(), logits(hf).numpy(), rtol=1e-9)


def test_an_adapter_that_is_not_merged_is_refused_by_its_place() -> None:
    with pytest.raises(
        UnsupportedModel, match=r"'bert\.encoder\.layer\.1\.attention\.self\.value' is not merged.*merge_and_unload"
    ):
        pellucid.load(Peft(adapted(merged=False)))


def test_a_learned_prompt_is_refused_by_its_kind() -> None:
    """The network inside does not see the prompt: its logits are those of another model."""
    with pytest.raises(UnsupportedModel, match="PREFIX_TUNING"):
        pellucid.load(Peft(bert(), prompt=True))


def _nan(hf: nn.Module, value: float = float("nan")) -> nn.Module:
    hf.bert.encoder.layer[1].output.dense.weight.data[3, 5] = value
    return hf


def _declared_quantised(hf: nn.Module) -> nn.Module:
    hf.config.quantization_config = {"quant_method": "bitsandbytes"}
    return hf


def _on_meta() -> nn.Module:
    with torch.device("meta"):
        return tf.BertForSequenceClassification(tf.BertConfig(**BERT))


def _pruned(hf: nn.Module) -> nn.Module:
    prune.l1_unstructured(hf.classifier, "weight", amount=0.5)
    return hf


def _other(kind: str) -> Callable[[], nn.Module]:
    return lambda: getattr(tf, kind)(tf.BertConfig(**BERT)).eval()


def _quantised() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(bert(torch.float32), {nn.Linear}, dtype=torch.qint8)


OBJECTS: dict[str, tuple[Callable[[], Any], type[PellucidError], str]] = {
    "quantised": (_quantised, UnsupportedModel, r"quantised \(.*quantized"),
    "declared quantised": (lambda: _declared_quantised(bert()), UnsupportedModel, r"quantised \(bitsandbytes"),
    "offloaded": (_on_meta, UnsupportedModel, "meta"),
    "NaN": (lambda: _nan(bert()), UnsupportedModel, r"'bert\.encoder\.layer\.1\.output\.dense\.weight' holds NaN"),
    "infinite": (
        lambda: _nan(bert(), float("inf")),
        UnsupportedModel,
        r"layer\.1\.output\.dense\.weight' holds NaN or inf",
    ),
    "pruned": (lambda: _pruned(bert()), UnsupportedModel, r"'classifier\.weight'"),
    "no head": (_other("BertModel"), UnsupportedModel, "BertModel returns no logits"),
    "masked language model": (_other("BertForMaskedLM"), UnsupportedModel, r"BertForMaskedLM.*\[2, 24, 60\]"),
    "tokens": (_other("BertForTokenClassification"), UnsupportedModel, r"\[2, 24, 3\] for 2 texts"),
    "answers": (_other("BertForQuestionAnswering"), UnsupportedModel, "BertForQuestionAnswering"),
    "choices": (_other("BertForMultipleChoice"), UnsupportedModel, "BertForMultipleChoice"),
    "next sentence": (_other("BertForNextSentencePrediction"), UnsupportedModel, r"'classifier\.weight'"),
    "no Hugging Face model": (lambda: nn.Linear(2, 2), InputError, "Linear has no Hugging Face configuration"),
    "a number": (lambda: 5, InputError, "int"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", OBJECTS)
def test_an_object_that_cannot_be_explained_is_refused_by_name(case: str) -> None:
    make, kind, words = OBJECTS[case]
    with pytest.raises(kind, match=words):
        pellucid.load(make())


ROPE = {"sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}
ROPE["full_attention"] = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("bert", "is_decoder", True),
        ("bert", "hidden_act", "mish"),
        ("bert", "position_embedding_type", "relative_key"),
        ("roberta", "position_embedding_type", "relative_key_query"),
        ("distilbert", "activation", "mish"),
        ("deberta_v3", "conv_kernel_size", 3),
        ("deberta_v3", "pooler_hidden_act", "mish"),
        ("modernbert", "hidden_activation", "mish"),
        ("modernbert", "rope_parameters", ROPE),
    ],
)
def test_a_configuration_that_is_not_implemented_is_refused_by_field_with_a_way_out(
    name: str, field: str, value: object
) -> None:
    hf = tiny.build(name, torch.float32)
    if field == "rope_parameters" and not hasattr(hf.config, field):
        return  # transformers 4 has no such field
    setattr(hf.config, field, value)
    shown = "rope_type='linear'" if field == "rope_parameters" else f"{field}={value!r}"
    with pytest.raises(UnsupportedModel, match=rf'{shown}.*access="gradients"'):
        pellucid.load(hf)
    model = pellucid.load(hf, access="gradients")
    assert (model.access, model.net, model.parity) == (Access.GRADIENTS, None, None)
    assert np.isfinite(pellucid.explain(model, TEXT, "gradient_x_input")[0].scores).all()


def test_the_way_out_of_a_failed_parity_says_what_is_lost() -> None:
    hf = bert()
    hf.classifier.register_forward_hook(lambda module, args, output: 2 * output)
    with pytest.raises(ParityError, match=r'relative 5\.0e-01.*access="gradients"'):
        pellucid.load(hf)
    model = pellucid.load(hf, access="gradients")
    a = pellucid.explain(model, TEXT, "gradient_x_input", target="all")[0]
    np.testing.assert_allclose(a.explained, logits(hf)[0].numpy(), rtol=1e-9)
    with pytest.raises(PellucidError, match=r"'decompx' needs READOUT access.*lowered to 'gradients'.*out of reach"):
        pellucid.explain(model, TEXT)
    outputs = pellucid.load(hf, access="outputs")
    with pytest.raises(PellucidError, match="'gradient_x_input' needs GRADIENTS access"):
        pellucid.explain(outputs, TEXT, "gradient_x_input")
    assert pellucid.explain(outputs, TEXT, "leave_one_out_delete")[0].scores.any()


@pytest.mark.parametrize(
    "asked", [{"device": "cuda:7"}, {"device": "nonsense"}, {"dtype": torch.int8}, {"access": "all"}]
)
def test_what_was_asked_for_and_cannot_be_is_refused_by_name(asked: dict[str, Any]) -> None:
    (name, value) = next(iter(asked.items()))
    for source in (bert(torch.float32), DEMO):
        with pytest.raises(InputError, match=rf"{name}.*{str(value).removeprefix('torch.')}"):
            pellucid.load(source, **asked)


def test_whatever_mode_the_caller_is_in() -> None:
    expected = pellucid.explain(pellucid.load(bert(torch.float32)), TEXT, target="all")[0]
    for mode in (torch.inference_mode(), torch.no_grad(), torch.autocast("cpu", torch.bfloat16)):
        with mode:
            hf = bert(torch.float32)
            model = pellucid.load(hf)
        for method in ("decompx", "gradient_x_input"):
            a = pellucid.explain(model, TEXT, method, target="all")[0]
            np.testing.assert_allclose(a.explained, expected.explained, rtol=1e-5)


@pytest.mark.parametrize("access", [None, "gradients"])
def test_a_model_that_returns_tuples_is_asked_for_names(access: Any) -> None:
    hf = bert()
    hf.config.return_dict = False
    a = pellucid.explain(pellucid.load(hf, access=access), TEXT, "gradient_x_input", target="all")[0]
    np.testing.assert_allclose(a.explained, logits(hf)[0].numpy(), rtol=1e-9)


# --- after loading


def _optimiser_step(hf: nn.Module) -> None:
    optimiser = torch.optim.SGD(hf.parameters(), lr=0.1)
    hf(input_ids=TEXT.input_ids).logits.sum().backward()
    optimiser.step()


def _new_head(hf: nn.Module) -> None:
    hf.classifier = nn.Linear(32, 3).to(hf.dtype)


def _layers_exchanged(hf: nn.Module) -> None:
    layers = hf.bert.encoder.layer
    layers[0], layers[1] = layers[1], layers[0]


CHANGES: dict[str, tuple[Callable[[nn.Module], object], str]] = {
    "an optimiser's step": (_optimiser_step, "changed in place"),
    "other weights loaded": (lambda hf: hf.load_state_dict(bert(seed=3).state_dict()), "changed in place"),
    "behind autograd's back": (lambda hf: hf.bert.pooler.dense.bias.data.add_(1), "bert.pooler.dense.bias was changed"),
    "a new head": (_new_head, "classifier.weight was replaced"),
    "layers exchanged": (_layers_exchanged, "was replaced"),
    "a layer less": (lambda hf: hf.bert.encoder.layer.__delitem__(2), "added or removed"),
    "another dtype": (lambda hf: hf.to(torch.float16), "was replaced"),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("change", CHANGES)
def test_weights_that_change_after_loading_are_noticed(change: str, dtype: torch.dtype) -> None:
    hf = bert(dtype)
    model = pellucid.load(hf)
    pellucid.explain(model, TEXT)
    hf.train().requires_grad_(True)
    pellucid.explain(model, TEXT)  # neither is a change of weights
    act, words = CHANGES[change]
    act(hf)
    with pytest.raises(ModelChanged, match=rf"changed since pellucid.load \(.*{words}.*load the model again"):
        pellucid.explain(model, TEXT)


@pytest.mark.parametrize(
    ("labels", "declared", "problem"),
    [
        (1, None, "regression"),
        (1, "regression", "regression"),
        (1, "multi_label_classification", "multi_label"),
        (3, None, "single_label"),
        (3, "regression", "regression"),
        (3, "single_label_classification", "single_label"),
        (3, "multi_label_classification", "multi_label"),
    ],
)
def test_heads(labels: int, declared: str | None, problem: str) -> None:
    hf = bert(num_labels=labels, problem_type=declared)
    model = pellucid.load(hf)
    expected = logits(hf)[0]
    best = int(expected.argmax())
    a = pellucid.explain(model, TEXT)[0]
    assert (model.problem, a.target, a.prediction, a.label) == (problem, best, f"LABEL_{best}", f"LABEL_{best}")
    assert a.explained == pytest.approx(expected[best].item())
    chances = {"regression": None, "single_label": expected.softmax(0), "multi_label": expected.sigmoid()}[problem]
    assert a.probability == (None if chances is None else pytest.approx(chances[best].item()))
    with pytest.raises(InputError, match=f"Class {labels}"):
        pellucid.explain(model, TEXT, target=labels)


def test_labels_come_from_the_configuration() -> None:
    assert pellucid.load(bert(id2label={0: "bad", 1: "so-so", 2: "good"})).labels == ("bad", "so-so", "good")


# --- architectures whose network is not rebuilt

SMALL = {k: v for k, v in BERT.items() if k != "pad_token_id"}
OLD = {"vocab_size": 60, "num_labels": 3, "n_embd": 32, "n_layer": 2, "n_head": 4}
SEQ2SEQ = {
    **{
        f"{side}_{k}": v
        for side in ("encoder", "decoder")
        for k, v in (("layers", 1), ("attention_heads", 4), ("ffn_dim", 64))
    },
    **{"vocab_size": 60, "d_model": 32, "num_labels": 3},
}
FUNNEL = {
    "block_sizes": [1, 1],
    "d_model": 32,
    "n_head": 4,
    "d_head": 8,
    "d_inner": 64,
    "vocab_size": 60,
    "num_labels": 3,
}
XLNET = {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64, "vocab_size": 60, "num_labels": 3}
PERCEIVER = {"num_latents": 4, "d_latents": 16, "d_model": 16, "num_blocks": 1, "num_self_attends_per_block": 1}
PERCEIVER |= {"num_self_attention_heads": 2, "num_cross_attention_heads": 2, "max_position_embeddings": 24}
PERCEIVER |= {"vocab_size": 60, "num_labels": 3}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4, "decoder_start_token_id": 0}

UNKNOWN: dict[str, tuple[str, dict[str, Any], Access]] = {
    "BigBird": ("BigBird", SMALL, Access.GRADIENTS),
    "SqueezeBert": ("SqueezeBert", {**SMALL, "embedding_size": 32}, Access.GRADIENTS),
    "RoFormer": ("RoFormer", SMALL, Access.GRADIENTS),
    "ConvBert, which convolves padding": ("ConvBert", SMALL, Access.GRADIENTS),
    "FNet, which mixes padding": ("FNet", SMALL, Access.GRADIENTS),
    "Funnel": ("Funnel", FUNNEL, Access.GRADIENTS),
    "XLNet, which has no position limit": ("XLNet", XLNET, Access.GRADIENTS),
    "GPT2, which reads the last row": ("GPT2", {**OLD, "pad_token_id": 0}, Access.GRADIENTS),
    "GPT2 without a padding token": ("GPT2", OLD, Access.GRADIENTS),
    "GPT2 that pads with its end token": ("GPT2", {**OLD, "pad_token_id": 57, "eos_token_id": 57}, Access.GRADIENTS),
    "Llama": ("Llama", {**SMALL, "pad_token_id": 0}, Access.GRADIENTS),
    "Longformer, whose vectors in fail": ("Longformer", {**SMALL, "attention_window": 4}, Access.OUTPUTS),
    "Perceiver, which has no table of words": ("Perceiver", PERCEIVER, Access.OUTPUTS),
    "Esm, which rescales ids but not vectors": (
        "Esm",
        {**SMALL, "pad_token_id": 1, "mask_token_id": 3},
        Access.OUTPUTS,
    ),
    "Bart, which reads the end token": ("Bart", SEQ2SEQ, Access.OUTPUTS),
    "T5": ("T5", {**T5, "vocab_size": 60, "num_labels": 3}, Access.OUTPUTS),
}


def unknown(case: str) -> tuple[nn.Module, Batch, SimpleNamespace]:
    """A tiny classifier that is not rebuilt, two texts of different lengths, and the least of a tokenizer."""
    prefix, fields, _ = UNKNOWN[case]
    torch.manual_seed(0)
    hf = getattr(tf, f"{prefix}ForSequenceClassification")(getattr(tf, f"{prefix}Config")(**fields)).double().eval()
    ids = torch.randint(5, 55, (2, 9), generator=torch.Generator().manual_seed(1))
    keep = torch.arange(9) < torch.tensor([9, 6])[:, None]
    ids[~keep] = getattr(hf.config, "pad_token_id", None) or 0
    end = getattr(hf.config, "eos_token_id", None)
    if end in range(5):
        ids[[0, 1], [8, 5]] = end
    pieces = SimpleNamespace(
        all_special_ids=[end], unk_token_id=None, convert_ids_to_tokens=lambda row: list(map(str, row))
    )
    return hf, Batch(ids, keep), pieces


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", UNKNOWN)
def test_an_unknown_architecture_keeps_the_methods_that_need_less(case: str) -> None:
    hf, batch, pieces = unknown(case)
    model = pellucid.load(hf, tokenizer=pieces)
    access = UNKNOWN[case][2]
    assert (model.family, model.access, model.net, model.parity) == ("unknown", access, None, None)
    assert hf.config.model_type in model.lost
    with pytest.raises(PellucidError, match=r"'decompx' needs READOUT access.*the decomposition.*out of reach"):
        pellucid.explain(model, batch)
    expected = torch.cat([logits(hf, batch.rows([i])) for i in range(2)]).numpy()
    for method in ("gradient_x_input", "integrated_gradients", "leave_one_out_delete", "random"):
        if pellucid.METHODS.get(method).needs > access:
            with pytest.raises(PellucidError, match=f"'{method}' needs GRADIENTS access.*so are gradients"):
                pellucid.explain(model, batch, method)
            continue
        got = pellucid.explain(model, batch, method, target="all")
        alone = [pellucid.explain(model, batch.rows([i]), method, target="all")[0] for i in range(2)]
        for i in range(2):
            assert got[i].scores.shape == (int(batch.keep[i].sum()), 3)
            assert np.isfinite(got[i].scores).all()
            np.testing.assert_allclose(got[i].scores, alone[i].scores, atol=1e-9)
            np.testing.assert_allclose(got[i].explained, expected[i], atol=1e-9, err_msg=method)


def _kin() -> nn.Module:
    fields = {**tiny.FAMILIES["roberta"][1], "max_position_embeddings": 34}
    return tf.XLMRobertaXLForSequenceClassification(tf.XLMRobertaXLConfig(**fields)).eval()


@pytest.mark.parametrize("make", [lambda: tiny.build("roberta", max_position_embeddings=34), _kin], ids=["own", "kin"])
def test_positions_that_are_numbered_from_the_padding_id_shorten_the_limit(make: Callable[[], nn.Module]) -> None:
    model = pellucid.load(make(), access="gradients")
    assert model.limit == 32
    assert len(pellucid.explain(model, Batch(torch.full((1, 32), 9)), "random")[0]) == 32
    with pytest.raises(InputError, match=r"33 tokens; .* at most 32"):
        pellucid.explain(model, Batch(torch.full((1, 33), 9)), "random")


def test_a_tokenizer_without_padding_reads_texts_of_any_length() -> None:
    words = Tokenizer(WordLevel({"[UNK]": 5, "fine": 6, "film": 7}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    tokenizer = tf.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    model = pellucid.load(unknown("GPT2 without a padding token")[0], tokenizer=tokenizer)
    both = pellucid.explain(model, ["film", "fine film"], "leave_one_out_delete")
    assert [[t.text for t in a.tokens] for a in both] == [["film"], ["fine", "film"]]
    alone = [pellucid.explain(model, text, "leave_one_out_delete") for text in ("film", "fine film")]
    for a, b in zip(both, alone, strict=True):
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-9)
