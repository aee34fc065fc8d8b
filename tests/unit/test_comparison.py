"""A comparison of detectors: what is in its table and its figure, and how the costs of a row are taken."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from backbones.engine.distributed import World
from backbones.errors import RunFolderError
from detection.compare import command
from detection.compare.config import ComparisonConfig, RowConfig
from detection.compare.figure import draw_comparison
from detection.compare.measure import find_and_measure
from detection.compare.record import MeasuredRow, check_same_row
from detection.compare.table import class_table, main_table
from detection.data.annotations import Annotations, DetectionDataset
from detection.inference.ensemble import Ensemble
from detection.inference.options import InferenceOptions
from detection.structures import Detections

CONFIG = ComparisonConfig(
    title="By hand",
    metric=["coco.AP50", "det.mAP"],
    rows=[
        RowConfig("first", ["a"], paper={"coco.AP50": 50.0}),
        RowConfig("second", ["a"], paper={"coco.AP50": 51.5}),
        RowConfig("third", ["b"], over="first"),
        RowConfig("fourth", ["b"]),
    ],
)
ROW = MeasuredRow(
    name="first",
    dependencies={"device": "a CPU"},
    provenance={},
    results={"coco": {"AP50": 48.0}, "det": {"mAP": 30.0, "per_class": {"cat": 20.0, "dog": None}}},
    pictures=10,
    seconds_per_picture=0.5,
    cpu_seconds_per_picture=0.8,
    peak_memory=200_000_000,
)
SECOND = replace(
    ROW,
    name="second",
    results={"coco": {"AP50": 49.25}, "det": {"mAP": 29.0, "per_class": {"cat": 18.0, "dog": None}}},
    seconds_per_picture=1.25,
    cpu_seconds_per_picture=2.0,
    peak_memory=500_000_000,
)
THIRD = replace(ROW, name="third", results=None, seconds_per_picture=0.25, cpu_seconds_per_picture=0.4)
MEASURED = {"first": ROW, "second": SECOND, "third": replace(THIRD, peak_memory=None)}


def cells(table: str) -> list[list[str]]:
    """Those of a table, without the rule below its header."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return [lines[0], *lines[2:]]


def test_the_table_of_a_cpu() -> None:
    header = ["row", "COCO AP50 %", "gain", "paper", "DET mAP %", "gain"]
    assert cells(main_table(CONFIG, MEASURED)) == [
        [*header, "s / picture", "CPU s", "times", "peak MB", "times"],
        ["first", "48.0", "-", "50.0", "30.0", "-", "0.5", "0.8", "1.0", "200", "1.0"],
        ["second", "49.2", "+1.2", "51.5", "29.0", "-1.0", "1.25", "2", "2.5", "500", "2.5"],
        ["third", "-", "-", "-", "-", "-", "0.25", "0.4", "0.5", "-", "-"],
        ["fourth", *"----------"],
    ]


def test_the_table_of_a_gpu_compares_seconds() -> None:
    on_gpu = {name: replace(row, cpu_seconds_per_picture=None) for name, row in MEASURED.items()}
    on_gpu["second"] = replace(on_gpu["second"], seconds_per_picture=2.0, peak_memory=250_000_000)
    header, *rows = cells(main_table(CONFIG, on_gpu))
    assert header[6:] == ["s / picture", "times", "peak MB", "times"]
    assert [row[6:] for row in rows[:2]] == [["0.5", "1.0", "200", "1.0"], ["2", "4.0", "250", "1.2"]]
    # Costs are compared with those of the first row that was measured.
    del on_gpu["first"]
    assert [row[6:] for row in cells(main_table(CONFIG, on_gpu))[1:3]] == [["-"] * 4, ["2", "1.0", "250", "1.0"]]


def test_the_table_of_classes() -> None:
    table = class_table(CONFIG, MEASURED, "det")
    assert table is not None
    assert cells(table) == [
        ["DET AP %", "first", "second", "third"],
        ["cat", "20.0", "18.0", "-"],
        ["dog", "-", "-", "-"],
    ]
    assert class_table(CONFIG, {"third": MEASURED["third"]}, "det") is None


def points(axes: Any) -> list[list[float]]:
    return [collection.get_offsets().tolist()[0] for collection in axes.collections]


def test_the_figures_points_are_costs_and_numbers() -> None:
    measured = {"first": ROW, "second": SECOND, "third": replace(THIRD, results={"coco": {"AP50": 50.5}})}
    figure = draw_comparison(CONFIG, measured)
    assert figure is not None
    of_time, of_memory, det_of_time, det_of_memory = figure.axes
    assert points(of_time) == [[0.8, 48.0], [2.0, 49.25], [0.4, 50.5]]
    assert points(of_memory) == [[200.0, 48.0], [500.0, 49.25], [200.0, 50.5]]
    assert points(det_of_time) == [[0.8, 30.0], [2.0, 29.0]]
    assert points(det_of_memory) == [[200.0, 30.0], [500.0, 29.0]]
    assert [axes.get_xlabel() for axes in (of_time, of_memory)] == ["CPU seconds a picture", "memory at the peak (MB)"]
    assert [axes.get_ylabel() for axes in (of_time, det_of_time)] == ["COCO AP50 (%)", "DET mAP (%)"]
    joined = [line.get_xydata().tolist() for line in of_time.lines]  # each row to that its gain is counted from
    assert joined == [[[2.0, 49.25], [0.8, 48.0]], [[0.4, 50.5], [0.8, 48.0]]]
    for axes in figure.axes:
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        assert all(left <= x <= right and low <= y <= high for x, y in points(axes))
    assert draw_comparison(CONFIG, {"third": MEASURED["third"]}) is None


def test_no_figure_of_an_earlier_comparison_stays(tmp_path: Path) -> None:
    path = tmp_path / "comparison.png"
    path.write_bytes(b"a picture")
    command._publish_figure(CONFIG, {"third": MEASURED["third"]}, path)
    assert not path.exists()


@pytest.mark.parametrize("now", [{"a": 1, "b": {"c": 2}}, {"a": 1}, {"a": 1, "b": {"c": 2, "d": 3}, "e": 4}])
def test_rows_of_other_dependencies_are_refused(now: dict[str, Any], tmp_path: Path) -> None:
    """Also where only one of the two has a key, whichever it is."""
    row = replace(ROW, dependencies={"a": 1, "b": {"c": 2, "d": 3}})
    check_same_row(tmp_path, row, dict(row.dependencies))
    with pytest.raises(RunFolderError, match=r"row 'first' was measured with (b\.c|b\.d|e) "):
        check_same_row(tmp_path, row, now)


NEEDED, WEIGHTS = 2**26, 2**25  # bytes: what finding objects takes, and what a detector has
SLOW, FAST = 0.2, 0.04  # seconds of a core


class Finder(torch.nn.Module):
    """Stands for a detector."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weights", torch.zeros(WEIGHTS // 4))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The pictures that ensembles look at; they find nothing, take what is known, with the first much longer."""
    pictures: list[Any] = []

    def look(self: Ensemble, images: Mapping[Any, Tensor], proposals: Tensor | None = None) -> Detections:
        pictures.append(images)
        work, start = torch.ones(NEEDED // 4), time.process_time()
        while time.process_time() - start < (SLOW if len(pictures) == 1 else FAST):
            work.add_(1)
        return Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))

    monkeypatch.setattr(Ensemble, "__call__", look)
    return pictures


def test_the_costs_of_a_row(seen: list[Any]) -> None:
    annotations = Annotations.from_objects(
        class_names=["thing"], image_ids=["one"], sizes=[(8, 8)], images=[], boxes=[], labels=[]
    )
    dataset = DetectionDataset(annotations, lambda _: torch.zeros(3, 8, 8, dtype=torch.uint8))
    size: Any = SimpleNamespace(detector={"shorter_side": 8, "longest_side": 8})
    first, second = ((Finder(), size) for _ in range(2))
    for models, weights in (([first, first], WEIGHTS), ([first, second], 2 * WEIGHTS)):
        seen.clear()
        found, cost = find_and_measure(
            models,  # type: ignore[arg-type]
            InferenceOptions(),
            dataset,
            world=World(0, 1, torch.device("cpu")),
            precision="fp32",
            workers=0,
        )
        assert (len(found), len(seen)) == (1, 2)  # what is made once, with the first picture, is no cost
        assert cost.cpu_seconds is not None
        assert FAST <= cost.cpu_seconds < SLOW / 2
        assert 1.1 * cost.seconds >= FAST
        if cost.memory is not None:  # another C library than glibc
            assert weights + NEEDED <= cost.memory < weights + NEEDED + WEIGHTS / 2
