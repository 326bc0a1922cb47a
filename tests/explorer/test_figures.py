"""Figures: every point is drawn where it belongs, with its reference."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image
from matplotlib.figure import Figure as Canvas

from explorer.figures import Figure, draw_figure
from explorer.points import Points

POINTS = Points(
    {
        "design": np.array(["a", "a", "b", "b"], dtype=object),
        "L": np.array([4096, 1024, 1024, 4096]),
        "speed": np.array([0.5, 0.25, 1.0, 0.75]),
    },
    ("design", "L"),
)
REFERENCE = {"speed": np.array([0.5, np.nan, 0.9, np.nan])}


def drawn(monkeypatch: pytest.MonkeyPatch, folder: Path, **fields: object) -> Canvas:
    """The matplotlib figure that is saved."""
    canvases: list[Canvas] = []
    save = Canvas.savefig

    def keep(canvas: Canvas, path: Path, **options: object) -> None:
        canvases.append(canvas)
        save(canvas, path)

    monkeypatch.setattr(Canvas, "savefig", keep)
    figure = Figure.model_validate({"file": "f.png", "x": "L", "series": "design", "y": ["speed"], **fields})
    draw_figure(
        figure, POINTS, folder, title=str, label=str.upper, percent=frozenset({"speed"}), references=REFERENCE,
        reference_title="published",
    )  # fmt: skip
    return canvases[0]


def test_lines_go_through_the_points_in_order_of_x(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    panel = drawn(monkeypatch, tmp_path).axes[0]
    lines = {str(line.get_label()): line for line in panel.lines}
    assert np.array(lines["A"].get_xydata()).tolist() == [[1024, 25], [4096, 50]]
    assert np.array(lines["B"].get_xydata()).tolist() == [[1024, 100], [4096, 75]]
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["1K", "4K"]
    assert panel.get_title(loc="left") == "speed [%]"


def test_bars_stand_side_by_side_without_overlap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bars = sorted(drawn(monkeypatch, tmp_path, kind="bars").axes[0].patches, key=lambda bar: bar.get_x())
    assert [bar.get_height() for bar in bars] == [25, 100, 50, 75]
    assert all(a.get_x() + a.get_width() <= b.get_x() + 1e-9 for a, b in pairwise(bars))


def test_references_are_rings_in_the_legend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    canvas = drawn(monkeypatch, tmp_path, reference=True)
    rings = [line for line in canvas.axes[0].lines if line.get_markerfacecolor() == "none"]
    places = [tuple(place) for ring in rings for place in np.array(ring.get_xydata()) if not np.isnan(place).any()]
    assert sorted(places) == [(1024, 90), (4096, 50)]
    assert [text.get_text() for text in canvas.legends[0].get_texts()] == ["A", "B", "published"]


def test_the_picture_has_the_size_of_its_panels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    drawn(monkeypatch, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["f.png"]
    height, width = image.imread(tmp_path / "f.png").shape[:2]
    assert 1.2 < width / height < 1.5
