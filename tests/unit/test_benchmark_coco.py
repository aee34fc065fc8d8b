"""The part coco of the benchmark: its files, its three ways, and the command on a few pictures. No test times."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detection.benchmark import coco_part, coco_ways
from detection.benchmark.coco_files import write_coco_files
from detection.benchmark.coco_part import compare_numbers
from detection.benchmark.command import main
from detection.benchmark.parts import PARTS
from detection.data.coco import read_coco
from detection.evaluate.files import read_coco_results


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_coco_files(tmp_path_factory.mktemp("files"), 60, 100, seed=0)


def test_files_are_like_cocos(files: tuple[Path, Path], tmp_path: Path) -> None:
    annotations = read_coco(None, files[0], bad_boxes="error").annotations
    assert len(annotations) == 60
    assert len(annotations.class_names) == 80
    assert max(annotations.category_ids) > 80  # ids have gaps
    assert 5 < len(annotations.labels) / 60 < 10
    assert (np.diff(annotations.offsets) == 0).any()
    frequent = np.bincount(annotations.labels, minlength=81)[1:]
    assert frequent.max() > 5 * np.median(frequent)
    found = read_coco_results(files[1], annotations)
    assert np.bincount(found.images).tolist() == [100] * 60
    entries = json.loads(files[1].read_text())
    scores = np.array([entry["score"] for entry in entries]).reshape(60, 100)
    assert (np.diff(scores, axis=1) <= 0).all()
    again = write_coco_files(tmp_path, 60, 100, seed=0)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in files]
    other = write_coco_files(tmp_path, 60, 100, seed=1)
    assert other[1].read_bytes() != files[1].read_bytes()


def test_crowds_are_among_the_objects(tmp_path: Path) -> None:
    truth, _ = write_coco_files(tmp_path, 300, 1, seed=0)
    assert 0.003 < read_coco(None, truth, bad_boxes="error").annotations.ignore.mean() < 0.03


def test_all_ways_give_the_same_numbers(files: tuple[Path, Path]) -> None:
    numbers = {name: way(*files) for name, way in coco_ways.WAYS.items()}
    assert 0.05 < numbers["pycocotools"][0] < 0.95  # a case that says something
    for other in ("pycocotools", "faster-coco-eval"):
        assert numbers["ours"] == pytest.approx(numbers[other], abs=1e-9)
        assert "the 12 numbers are equal" in compare_numbers(numbers["ours"], numbers[other])


def test_differences_are_said() -> None:
    numbers: list[float | None] = [0.5] * 11 + [None]
    assert "equal" in compare_numbers(numbers, list(numbers))
    assert "NOT EQUAL: AP50 0.500000 and 0.500000" in compare_numbers(numbers, [0.5, 0.5 + 2e-9, *numbers[2:]])
    assert compare_numbers(numbers, [*numbers[:11], 0.0]) == "NOT EQUAL: ARl - and 0.000000"


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_the_peak_is_what_came_on_top(monkeypatch: pytest.MonkeyPatch, files: tuple[Path, Path]) -> None:
    def hungry(truth: Path, found: Path) -> list[float | None]:
        np.ones(2**27, dtype=np.uint8)
        return []

    monkeypatch.setitem(coco_ways.WAYS, "ours", hungry)
    _, peak = coco_ways._with_peak("ours", *files)
    assert peak is not None
    assert 2**27 * 0.9 < peak < 2**27 * 1.5


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def here(name: str, truth: Path, found: Path) -> tuple[list[float | None], int]:
        return coco_ways.WAYS[name](truth, found), 2**20

    def others(truth: Path, found: Path) -> list[float | None]:
        return [(value or 0) + (k == 1) / 100 for k, value in enumerate(coco_ways.ours(truth, found))]

    # The packages themselves are above: here is what the command makes of their numbers.
    monkeypatch.setitem(coco_ways.WAYS, "pycocotools", coco_ways.ours)
    monkeypatch.setitem(coco_ways.WAYS, "faster-coco-eval", others)
    monkeypatch.setattr(coco_part, "in_a_process", here)
    monkeypatch.setattr("gc.collect", lambda: 0)  # a sixth of a second each, of what other tests have left
    output = tmp_path / "new" / "benchmark.json"
    main(["coco", "--coco.pictures", "20", "--rounds", "2", "--threads", "1", "--seed", "3", "--output", str(output)])
    written = json.loads(output.read_text())
    assert [row["name"] for row in written["rows"]] == ["20 pictures / pycocotools", "20 pictures / faster-coco-eval"]
    for row in written["rows"]:
        assert (row["part"], row["unit"], row["detections"], row["rounds"]) == ("coco", "pictures/s", 2000, 2)
        assert row["ratio"] > 0
        assert (row["ours_memory"], row["reference_memory"]) == (2**20, 2**20)
    assert [row["greatest_difference"] for row in written["rows"]] == [0, pytest.approx(0.01)]
    assert written["coco_options"] == {"pictures": 20, "seed": 3}
    printed = capsys.readouterr().out
    assert "20 pictures / pycocotools: the 12 numbers are equal" in printed
    assert "20 pictures / faster-coco-eval: NOT EQUAL: AP50 " in printed


def test_full_is_the_size_of_val2017(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def stop(options: coco_part.CocoOptions) -> None:
        seen.append(options.pictures)
        raise KeyboardInterrupt

    monkeypatch.setitem(PARTS, "coco", replace(PARTS["coco"], check=stop))
    for arguments in ([], ["--full"], ["--full", "--coco.pictures", "7"]):
        with pytest.raises(SystemExit):
            main(["coco", *arguments])
    assert seen == [1000, 5000, 7]


def test_errors_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refusal(*arguments: str) -> str:
        with pytest.raises(SystemExit) as exit_:
            main(["coco", *arguments])
        assert exit_.value.code == 2
        return capsys.readouterr().err.strip().splitlines()[-1]

    assert "pictures 0: give 1" in refusal("--coco.pictures", "0")
    assert "rounds 0: give 1" in refusal("--rounds", "0")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if "coco" in name else find(name))
    assert "pip install pycocotools faster-coco-eval" in refusal()
