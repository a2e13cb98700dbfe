"""Shape annotations are executed here, and only here; everything runs offline on one thread."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

from jaxtyping import install_import_hook

with install_import_hook(
    ["pellucid.encoder", "pellucid.families", "pellucid.methods", "pellucid.audits", "pellucid.metrics"],
    "beartype.beartype",
):
    import pellucid
    import pellucid.run

from pathlib import Path

import pytest
import tiny
import torch
import transformers

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real models, data and official outputs that lies beside a development checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"needs {SHARED}, which is not here")
    return SHARED


@pytest.fixture(scope="session")
def minilm(shared: Path) -> pellucid.Model:
    """A real six-layer BERT fine-tuned on SST-2."""
    return pellucid.load(shared / "models" / "minilm-sst2")


@pytest.fixture(scope="session")
def demo() -> pellucid.Model:
    """The bundled two-layer BERT."""
    return pellucid.load(Path(pellucid.__file__).parent / "demo")


@pytest.fixture(scope="session", params=list(tiny.FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    """Every tiny model's name, one after the other."""
    return str(request.param)


@pytest.fixture(scope="session")
def model(family: str) -> pellucid.Model:
    """A tiny random model of each family, opened in float64."""
    return tiny.opened(family)
