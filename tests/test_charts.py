"""Charts: what is drawn is what was measured, labels stay the user's text, and nothing of the caller's is changed."""

import io
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from pellucid.finding import Finding, Findings, Picture
from pellucid.render.charts import DIVERGING, LINES, MOST_LABELS, SEQUENTIAL, curves, intervals, label_of, maps

WILD = ["[CLS]", "$5", "$x_2$", r"\$a$", "a\x00b", "_hidden", "日本語", "a\nb", "\ud800", "<b>&", "##ing", "y" * 80]


def one_of_each(labels: list[str], width: float = 7.0) -> dict[str, Callable[[], Figure]]:
    n = len(labels)
    square = np.arange(n * n, dtype=float).reshape(n, n)
    flat = [float(i) for i in range(n)]
    return {
        "curves": lambda: curves({k: ([1, 2], [i, i], None, None) for i, k in enumerate(labels)}, labels[0], labels[-1],
                                 labels[1], width=width),
        "maps": lambda: maps(dict.fromkeys(labels[:3], square), labels, labels, labels[1], width=width),
        "intervals": lambda: intervals(labels, flat, flat, flat, labels[1], labels[0], width=width),
    }  # fmt: skip


def svg_of(figure: Figure) -> bytes:
    page = io.BytesIO()
    figure.savefig(page, format="svg", metadata={"Date": None})
    return page.getvalue()


@pytest.mark.parametrize("kind", ["curves", "maps", "intervals"])
def test_labels_are_text_and_nothing_else(kind: str, tmp_path) -> None:
    found = Findings([], "charts", pictures={kind: Picture(one_of_each(WILD)[kind])})
    (page,) = [p for p in found.save(tmp_path) if p.suffix == ".svg"]
    written = page.read_text(encoding="utf-8")
    root = ET.fromstring(written)  # well-formed: no control characters, no half characters, markup escaped
    texts = ["".join(t.itertext()).strip() for t in root.iter("{http://www.w3.org/2000/svg}text")]
    for label in ("$5", "$x_2$", r"\$a$", "a�b", "_hidden", "日本語", "a b", "<b>&"):
        assert label in texts, (label, texts)
    assert found.save(tmp_path / "again")[-1].stat().st_size
    assert (tmp_path / "again" / page.name).read_bytes() == page.read_bytes()


def test_label_of() -> None:
    assert label_of("a" * 18) == "a" * 18
    assert label_of("a" * 19) == "a" * 17 + "…"
    assert label_of(" a\t$b\n") == r"a \$b"


@pytest.mark.parametrize("kind", ["curves", "maps", "intervals"])
def test_the_callers_settings_neither_change_nor_matter(kind: str) -> None:
    draw = one_of_each(["a", "b", "c"])[kind]
    plain = draw()
    with mpl.rc_context({"text.usetex": True, "font.size": 40, "axes.facecolor": "black", "axes.grid": True}):
        keys = [k for k in mpl.rcParams if k != "backend"]  # which is found out when it is first read
        before = {k: mpl.rcParams[k] for k in keys}
        odd = draw()
        assert {k: mpl.rcParams[k] for k in keys} == before
    for figure in (plain, odd):
        figure.set_canvas(FigureCanvasAgg(figure))
    with mpl.rc_context({"svg.hashsalt": "same"}):
        assert svg_of(plain) == svg_of(odd)


def test_pyplot_is_not_imported() -> None:
    code = (
        "import sys; from pellucid.render.charts import curves; import pellucid.audits.mixing; "
        "curves({'a': ([1], [2], None, None)}, 'x', 'y', 't'); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    lean = "import sys, pellucid; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", lean], check=True)


def test_curves_show_values_bands_and_controls() -> None:
    figure = curves(
        {"a": ([1, 2, 3], [0.1, None, 0.3], [0.0, 0.1, 0.2], [0.2, 0.3, 0.4]), "b": ([1, 2, 3], [1, 2, 3], None, None)},
        "layer", "share", "title",
        {"b": ([1, 3], [5, 5], None, None), "chance": ([1, 3], [7, 7], None, None)},
        ylim=(0.0, 8.0),
    )  # fmt: skip
    (ax,) = figure.axes
    lines = [line for line in ax.lines if len(line.get_xdata())]
    np.testing.assert_array_equal(lines[0].get_ydata(), [0.1, np.nan, 0.3])
    assert [line.get_linestyle() for line in lines] == ["-", "-", "--", "--"]
    assert [to_rgb(line.get_color()) for line in lines[:3]] == [to_rgb(LINES[i]) for i in (0, 1, 1)]
    assert to_rgb(lines[3].get_color()) not in [to_rgb(c) for c in LINES]
    (band,) = ax.collections
    assert band.get_paths()[0].contains_point((1, 0.1))
    assert ax.get_ylim() == (0.0, 8.0)
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["a", "b", "chance", "dashed: its control"]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title(loc="left")) == ("layer", "share", "title")


def test_curves_over_layers_have_whole_ticks() -> None:
    figure = curves({"a": ([1, 2, 3], [1, 2, 3], None, None)}, "layer", "", "")
    assert all(t % 1 == 0 for t in figure.axes[0].get_xticks())
    assert not figure.legends


def test_many_series_can_be_told_apart() -> None:
    figure = curves({str(i): ([1, 2], [i, i], None, None) for i in range(14)}, "", "", "")
    looks = {(line.get_color(), line.get_marker()) for line in figure.axes[0].lines}
    assert len(looks) == 14


@pytest.mark.parametrize("signed", [None, True, False])
def test_maps_share_one_scale_with_zero_in_white(signed: bool | None) -> None:
    panels = {"a": np.array([[0.0, 2.0], [np.nan, 1.0]]), "b": np.array([[0.0, 1.0], [-3.0, np.inf]])}
    if signed is False:
        panels = {k: np.abs(v) for k, v in panels.items()}
    figure = maps(panels, ["r", "s"], ["c", "d"], "t", signed=signed)
    images = [im for ax in figure.axes for im in ax.images]
    assert len(images) == 2
    for image, values in zip(images, panels.values(), strict=True):
        low, high = image.get_clim()
        assert (low, high) == (0.0 if signed is False else -3.0, 3.0)
        shown = np.asarray(image.get_array().filled(np.nan))
        np.testing.assert_array_equal(shown, np.where(np.isfinite(values), values, np.nan))
        colours = image.to_rgba(image.get_array())
        np.testing.assert_allclose(colours[0, 0, :3], 1.0)
        missing = colours[~np.isfinite(values)]
        assert len(missing) == 1
        assert np.ptp(missing[0, :3]) < 1e-9, "grey"
        assert missing[0, 0] < 0.9
    assert images[0].get_cmap().name == (SEQUENTIAL if signed is False else DIVERGING).name


def test_maps_without_negative_numbers_have_one_hue() -> None:
    for values in (np.eye(2), np.zeros((2, 2))):
        (image,) = maps({"a": values}, ["r", "s"], ["c", "d"], "").axes[0].images
        assert image.get_cmap().name == SEQUENTIAL.name
        assert image.get_clim() == (0.0, 1.0)


@pytest.mark.parametrize("width", [6.0, 8.0])
@pytest.mark.parametrize("panels", [1, 2, 4])
@pytest.mark.parametrize("n", [2, 20, 60, 300])
def test_labels_do_not_overlap_and_stay_inside(n: int, panels: int, width: float) -> None:
    labels = [f"token{i}" for i in range(n)]
    square = np.ones((n, n))
    figures = [
        maps({str(i): square for i in range(panels)}, labels, labels, "title", width=width),
        intervals(labels, [0.0] * n, [0.0] * n, [1.0] * n, "title", "weight", width=width),
        curves({k: ([1, 2], [1, 2], None, None) for k in labels[:6]}, "layer", "share", "title", width=width),
    ]
    for figure in figures:
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        paper = figure.bbox
        for ax in figure.axes:
            if not ax.get_visible():
                continue
            for axis, side in ((ax.xaxis, 0), (ax.yaxis, 1)):
                shown = [t for t in axis.get_ticklabels() if t.get_text()]
                assert len(shown) <= MOST_LABELS
                assert all(t.get_fontsize() >= 6 for t in shown)
                boxes = [t.get_window_extent().get_points()[:, side] for t in shown]
                boxes.sort(key=lambda b: b[0])
                for a, b in pairwise(boxes):
                    assert a[1] <= b[0] + 0.5
        tight = figure.get_tightbbox().transformed(figure.dpi_scale_trans)
        assert tight.x0 >= paper.x0 - 2
        assert tight.x1 <= paper.x1 + 2
        for legend in figure.legends:
            box = legend.get_window_extent()
            assert box.x0 >= paper.x0 - 2
            assert box.x1 <= paper.x1 + 2


def test_intervals_show_values_and_leave_out_what_is_missing() -> None:
    figure = intervals(["a", "b", "c"], [0.1, None, 0.3], [0.0, None, 0.2], [0.2, None, 0.4], "t", "x")
    (ax,) = figure.axes
    np.testing.assert_array_equal(ax.lines[-1].get_xdata(), [0.1, np.nan, 0.3])
    segments = [s for s in ax.collections[0].get_segments() if len(s) == 2 and np.isfinite(s).all()]
    np.testing.assert_array_equal(segments, [[[0.0, 0], [0.2, 0]], [[0.2, 2], [0.4, 2]]])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b", "c"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1], "the first on top"


def test_a_finding_without_a_value_leaves_a_gap(tmp_path) -> None:
    from pellucid.audits.layers import by_layer

    blank = Finding("a", "share", None, None, None, 0, "TOO FEW TEXTS", "", where="layer 1")
    full = Finding("a", "share", 0.5, (0.4, 0.6), 0.1, 9, "X", "", where="layer 2")
    ax = by_layer([blank, full], {"share": "share"}, "y", "t").axes[0]
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [np.nan, 0.5])
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [1, 2])
