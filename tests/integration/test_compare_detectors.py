"""The command `compare_detectors`: its numbers are those of `evaluate_detector`, and what is measured once stays."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from detector_commands import refusal, train, write_backbone, write_voc

from backbones.engine.machine import cpu_model
from backbones.errors import RunFolderError
from detection.compare import command, record
from detection.compare.command import main
from detection.compare.record import read_rows
from detection.data.shapes import shapes_for_detection
from detection.test import main as evaluate_main

SEEN = ["--data.train_size", "5", "--data.flip", "false", "--train.steps", "50", "--train.checkpoint_every", "50"]
SEEN += ["--data.test_split", "train", "--backbone.options", "{width: 8}", "--optimizer.lr", "0.05"]
DATA: dict[str, Any] = {"name": "shapes", "test_split": "train", "test_size": 5}
SCALES = [32, 64, 96]
ROWS: list[dict[str, Any]] = [
    {"name": "baseline", "models": ["first"], "paper": {"coco.AP50": 12.25}},
    {"name": "+ refinement", "models": ["first"], "inference": {"refine": True, "vote": True}},
    {"name": "+ scales", "models": ["first"], "inference": {"scales": SCALES}, "over": "baseline"},
    {"name": "+ ensemble", "models": ["first", "second"]},
]
TRAIN = {"first": "train the first", "second": "train the second"}
CONFIG = {"title": "Shapes", "data": DATA, "metric": ["coco.AP50", "voc07.mAP"], "train": TRAIN, "rows": ROWS}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two detectors that find some of the shapes that they were trained on."""
    folder = tmp_path_factory.mktemp("models")
    weights = write_backbone(folder / "resnet18.safetensors", width=8)
    assert train(folder / "first", weights, *SEEN)["results"]["coco"]["AP50"] > 1
    train(folder / "second", weights, *SEEN, "--seed", "1", "--train.steps", "25")
    return {name: str(folder / name) for name in ("first", "second")}


@pytest.fixture
def no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that look at none: drawing one takes a second."""
    monkeypatch.setattr(command, "draw_comparison", lambda *_: None)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path / "config.yaml")


def write_config(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump(CONFIG | changes))
    return path


def arguments(config: Path, models: dict[str, str], output: Path, *more: str) -> list[str]:
    given = ["--models", json.dumps(models)] if models else []
    return ["--config", str(config), *given, "--output", str(output), "--workers", "0", "--device", "cpu", *more]


def compare(config: Path, models: dict[str, str], output: Path, *more: str) -> dict[str, dict[str, Any]]:
    """The rows that are left in comparison.json, by name."""
    main(arguments(config, models, output, *more))
    return {row["name"]: row for row in json.loads((output / "comparison.json").read_text())["rows"]}


@pytest.fixture(scope="module")
def compared(models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole comparison."""
    folder = tmp_path_factory.mktemp("compared")
    compare(write_config(folder / "config.yaml"), models, folder / "out")
    return folder / "out"


def rows_of(folder: Path) -> dict[str, Any]:
    return {row["name"]: row for row in json.loads((folder / "comparison.json").read_text())["rows"]}


def test_numbers_are_those_of_evaluate_detector(models: dict[str, str], compared: Path, tmp_path: Path) -> None:
    rows = rows_of(compared)
    assert list(rows) == [row["name"] for row in ROWS]
    data = ["--data.name", "shapes", "--data.test_split", "train", "--data.test_size", "5"]
    for number, row in enumerate(ROWS):
        options = [["--inference." + key, json.dumps(value)] for key, value in row.get("inference", {}).items()]
        paths = [models[key] for key in row["models"]]
        output = tmp_path / str(number)
        flags = ["--workers", "0", "--device", "cpu", "--metric", "coco", "voc07", "--output", str(output)]
        evaluate_main(["--model", *paths, *data, *flags, *(word for option in options for word in option)])
        assert json.loads((output / "results.json").read_text()) == rows[row["name"]]["results"]
    assert len({row["results"]["coco"]["AP"] for row in rows.values()}) == 4  # different ways
    numbers = [row["results"]["coco"]["AP50"] for row in rows.values()]
    assert [row["over"] for row in rows.values()] == [None, "baseline", "baseline", "+ scales"]
    gains = [row["gain"]["coco.AP50"] for row in rows.values()]
    assert gains == [None, numbers[1] - numbers[0], numbers[2] - numbers[0], numbers[3] - numbers[2]]


def test_costs_are_measured(models: dict[str, str], compared: Path) -> None:
    rows = rows_of(compared)
    weights = Path(models["first"], "weights.safetensors").stat().st_size
    for row in rows.values():
        assert row["provenance"].keys() == {"command", "versions", "git_commit", "hardware"}
        assert row["dependencies"]["device"] == row["provenance"]["hardware"]["cpu"] == cpu_model()
        assert row["pictures"] == 5
        assert 0 < row["seconds_per_picture"] < 10
        assert (
            0 < row["cpu_seconds_per_picture"] < 1.5 * row["seconds_per_picture"]
        )  # one thread, beside a watching one
        assert row["peak_memory"] > 0.9 * weights * len(row["models"])


def test_what_it_leaves_and_prints(compared: Path) -> None:
    assert {path.name for path in compared.iterdir()} == {"comparison.json", "table.md", "comparison.png"}
    assert (compared / "comparison.png").read_bytes()[:4] == b"\x89PNG"
    text = (compared / "table.md").read_text()
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    columns = ["row", "COCO AP50 %", "gain", "paper", "VOC07 mAP %", "gain"]
    assert lines[0] == [*columns, "s / picture", "CPU s", "times", "peak MB", "times"]
    baseline, refined = lines[2:4]
    first, second = (row["results"] for row in list(rows_of(compared).values())[:2])
    assert baseline[:6] == [
        "baseline",
        f"{first['coco']['AP50']:.1f}",
        "-",
        "12.2",
        f"{first['voc07']['mAP']:.1f}",
        "-",
    ]
    assert refined[2:4] == [f"{second['coco']['AP50'] - first['coco']['AP50']:+.1f}", "-"]
    for name, value in first["voc07"]["per_class"].items():
        (by_class,) = [line for line in lines if line[0] == name]
        assert by_class[1] == ("-" if value is None else f"{value:.1f}")
    assert "'+ scales' over 'baseline'" in text
    assert "is missing" not in text


@pytest.mark.usefixtures("no_figure")
def test_a_stopped_comparison_goes_on_where_it_was(
    config: Path, models: dict[str, str], compared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, done = command.find_and_measure, []

    def stop_at_the_third(*given: Any, **options: Any) -> Any:
        done.append(given[1])
        if len(done) == 3:
            raise KeyboardInterrupt
        return measure(*given, **options)

    monkeypatch.setattr(command, "find_and_measure", stop_at_the_third)
    with pytest.raises(SystemExit) as exit_info:
        main(arguments(config, models, tmp_path / "out"))
    assert exit_info.value.code == 130
    before = rows_of(tmp_path / "out")
    assert list(before) == ["baseline", "+ refinement"]
    assert (tmp_path / "out/table.md").exists()
    monkeypatch.setattr(sys, "argv", ["another", "command"])
    after = compare(config, models, tmp_path / "out")
    assert len(done) == 3 + 2
    measured_by = [row["provenance"]["command"] for row in after.values()]
    assert measured_by == [before["baseline"]["provenance"]["command"]] * 2 + ["another command"] * 2
    assert {name: after[name] for name in before} == before
    assert {name: row["results"] for name, row in after.items()} == {
        name: row["results"] for name, row in rows_of(compared).items()
    }
    compare(config, models, tmp_path / "out")
    assert len(done) == 5
    compare(config, models, tmp_path / "out", "--overwrite")
    assert len(done) == 9


@pytest.mark.usefixtures("no_figure")
def test_rows_whose_models_are_missing_say_what_trains_them(
    config: Path, models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rows = compare(config, {"first": models["first"]}, tmp_path / "out")
    assert list(rows) == ["baseline", "+ refinement", "+ scales"]
    printed = capsys.readouterr().out
    assert "models.second is missing; it is trained by: train the second\n" in printed
    assert "first is missing" not in printed
    # What was measured stays when only the other model is given.
    more = compare(config, {"second": models["second"]}, tmp_path / "out")
    assert more == rows
    whole = compare(config, models, tmp_path / "out")
    assert [name for name in whole if name not in rows] == ["+ ensemble"]

    line = refusal(capsys, main, *arguments(config, {}, tmp_path / "none"))
    assert "models" in line
    assert "train the first" in line
    line = refusal(capsys, main, *arguments(config, models | {"second": "/nowhere"}, tmp_path / "none"))
    assert "models.second /nowhere" in line
    assert "train the second" in line
    assert not (tmp_path / "none").exists()


def row(**changes: Any) -> dict[str, Any]:
    return {"rows": [ROWS[0] | changes]}


@pytest.mark.parametrize(
    ("changes", "culprits"),
    [
        (row(inference={"blur": 3}), ["config.yaml", "blur"]),
        (row(inference={"scales": [300, 200]}), ["inference.scales [300, 200]"]),
        (row(inference={"merge": "sum"}), ["config.yaml", "merge"]),
        (row(colour="red"), ["config.yaml", "colour"]),
        (row(paper={"coco.AP75": 3.0}), ["baseline", "paper.coco.AP75", "coco.AP50, voc07.mAP"]),
        (row(models=["first", "third"]), ["baseline", "'third'"]),
        (row(models=[]), ["baseline", "models"]),
        (row(over="+ scales"), ["baseline", "'+ scales'"]),
        ({"rows": [ROWS[0], ROWS[0]]}, ["baseline", "two"]),
        ({"rows": []}, ["rows is missing"]),
        ({"rows": ROWS[:3]}, ["models.second", "no row"]),
        ({"metric": ["coco.AP51"]}, ["coco.AP51", "coco.AP50", "voc12.mAP"]),
        ({"metric": ["voc07"]}, ["metric voc07", "voc07.mAP"]),
        ({"metric": []}, ["metric is missing"]),
        ({"data": DATA | {"test_split": None}}, ["data.test_split"]),
        ({"data": DATA | {"name": "voc"}}, ["data.root"]),
        ({"workers": -1}, ["workers -1"]),
    ],
    ids=lambda value: str(value)[:60],
)
def test_bad_configs_are_refused(
    changes: dict[str, Any],
    culprits: list[str],
    models: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    config = write_config(tmp_path / "config.yaml", **changes)
    options = [word for word in arguments(config, models, tmp_path / "out") if word not in ("--workers", "0")]
    line = refusal(capsys, main, *options)
    for culprit in culprits:
        assert culprit in line
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_figure")
def test_rows_of_something_else_are_not_taken_for_these(
    models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    output, one = tmp_path / "out", {"rows": ROWS[:1]}
    config = write_config(tmp_path / "one.yaml", **one)
    compare(config, {"first": models["first"]}, output)
    before = (output / "comparison.json").read_bytes()
    refused = {
        "weights.1 (first)": arguments(config, {"first": models["second"]}, output),
        "data.fingerprint": arguments(config, {"first": models["first"]}, output, "--data.test_size", "4"),
        "precision": arguments(config, {"first": models["first"]}, output, "--precision", "bf16"),
        "workers 0, now it is 1": arguments(config, {"first": models["first"]}, output, "--workers", "1"),
        "inference.refine": arguments(
            write_config(tmp_path / "other.yaml", **row(inference={"refine": True})), {"first": models["first"]}, output
        ),
        "row 'baseline', which": arguments(
            write_config(tmp_path / "named.yaml", **row(name="plain")), {"first": models["first"]}, output
        ),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record, "cpu_model", lambda: "another CPU")
        line = refusal(capsys, main, *arguments(config, {"first": models["first"]}, output))
        assert f"device {cpu_model()}, now it is another CPU" in line
    for culprit, options in refused.items():
        line = refusal(capsys, main, *options)
        assert str(output) in line
        assert culprit in line
        assert "--overwrite" in line
        assert (output / "comparison.json").read_bytes() == before
    assert list(compare(tmp_path / "named.yaml", {"first": models["first"]}, output, "--overwrite")) == ["plain"]


DEEP = "takes the place of 500 dictionaries in each other"
WRONG: list[dict[str, Any]] = [
    {"results": {"voc07": []}},
    {"results": {"voc07": 3}},
    {"results": {"voc07": {"mAP": "high"}}},
    {"results": {"voc07": {"mAP": True}}},
    {"results": {"voc07": {"per_class": ["circle"]}}},
    {"results": {"voc07": {"per_class": "circle"}}},
    {"results": {"voc07": {"per_class": {"circle": "high"}}}},
    {"results": {"voc07": {"per_class": {"circle": {"AP": 3}}}}},
    {"results": {"coco": {"per_class": {"circle": 3}}}},
    {"peak_memory": 10**400},
    {"peak_memory": -1},
    {"seconds_per_picture": math.nan},
    {"seconds_per_picture": math.inf},
    {"seconds_per_picture": None},
    {"cpu_seconds_per_picture": -1.0},
    {"pictures": True},
    {"provenance": []},
    {"dependencies": None},
    {"dependencies": {"deep": DEEP}},
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: str(wrong)[:60])
def test_rows_that_can_not_be_are_refused(wrong: dict[str, Any], compared: Path, tmp_path: Path) -> None:
    whole = json.loads((compared / "comparison.json").read_text())
    assert list(read_rows(compared, list(rows_of(compared)))) == list(rows_of(compared))
    whole["rows"][1] |= wrong
    text = json.dumps(whole).replace(f'"{DEEP}"', '{"a": ' * 500 + "1" + "}" * 500)
    (tmp_path / "comparison.json").write_text(text)
    with pytest.raises(RunFolderError, match=r"comparison\.json: not a file of this command"):
        read_rows(tmp_path, list(rows_of(compared)))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"rows": [{}]}', '{"rows": 3}', '{"rows": [{"name": 3}]}', "[" * 9999],
    ids=lambda text: text[:20],
)
def test_a_damaged_record_is_refused(
    text: str, config: Path, models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/comparison.json").write_text(text)
    line = refusal(capsys, main, *arguments(config, models, tmp_path / "out"))
    assert "comparison.json" in line
    assert (tmp_path / "out/comparison.json").read_text() == text


def test_a_test_set_whose_objects_are_not_published_gives_files_for_its_server(
    models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    year = tmp_path / "VOC2012"
    write_voc(year, "test", shapes_for_detection("train", 3, 64))
    for xml in (year / "Annotations").iterdir():
        xml.unlink()
    (year / "Annotations").rmdir()
    data = {"name": "voc", "root": str(tmp_path), "test_split": "VOC2012/test"}
    config = write_config(tmp_path / "config.yaml", data=data, metric=["voc12.mAP"], rows=[{**ROWS[0], "paper": {}}])
    rows = compare(config, {"first": models["first"]}, tmp_path / "out")
    assert rows["baseline"]["results"] is None
    assert (tmp_path / "out/1_baseline/comp4_det_test_circle.txt").exists()
    assert not (tmp_path / "out/comparison.png").exists()
    printed = capsys.readouterr().out
    assert f"'baseline': not scored here; its detections: {tmp_path}/out/1_baseline" in printed
    assert "| baseline |           - |" in printed


def test_detectors_of_other_classes_are_refused(
    config: Path, models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_voc(tmp_path / "VOC2007", "trainval", shapes_for_detection("train", 5, 64), ["a", "b", "c", "d", "e", "f"])
    data = ["--data.name", "voc", "--data.root", str(tmp_path), "--data.train_split", "trainval"]
    weights = Path(models["first"]).parent / "resnet18.safetensors"
    options = ["--data.test_split", "null", "--train.steps", "1", "--train.checkpoint_every", "1"]
    train(tmp_path / "other", weights, "--backbone.options", "{width: 8}", *data, *options)
    line = refusal(capsys, main, *arguments(config, models | {"second": str(tmp_path / "other")}, tmp_path / "out"))
    assert f"{tmp_path / 'other'}: does not go with {models['first']}" in line
    assert "only it knows b, e, f" in line
