"""A cell that ends its process, as a kernel does that is out of memory; found by name in a study's processes."""

import os
import signal
from pathlib import Path
from typing import Any

from pellucid.study import cell as cells


def safely(cell: Any, folder: Path, *more: Any) -> tuple[list[str], float]:
    """Measures a cell, unless it is called deadly."""
    if cell.model == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    return cells.measure(cell, folder, lambda line: None), 0.0
