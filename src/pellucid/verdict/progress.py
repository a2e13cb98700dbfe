"""Progress of the whole: one bar over all parts, counted in the seconds that the plan gives them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tqdm.auto import tqdm

from pellucid.run.plan import Progress
from pellucid.verdict.budget import Planned

_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"


@contextmanager
def bar_of(progress: Progress, parts: Sequence[Planned]) -> Iterator[Callable[[str, float], None]]:
    """Hears the part and how much of it is done; the whole is counted in planned seconds."""
    whole = sum(p.seconds for p in parts) or float(len(parts))
    size = {p.part.name: (p.seconds or (0.0 if any(q.seconds for q in parts) else 1.0)) / whole for p in parts}
    before = {p.part.name: sum(size[q.part.name] for q in parts[:i]) for i, p in enumerate(parts)}
    bar = tqdm(total=1000, disable=None, leave=False, bar_format=_BAR) if progress is True else None

    def tick(name: str, share: float) -> None:
        at = round(1000 * (before[name] + size[name] * share))
        if bar is not None:
            bar.set_description_str(name)
            bar.update(at - bar.n)
        elif callable(progress):
            progress(at, 1000)

    try:
        yield tick
    finally:
        if bar is not None:
            bar.close()
