"""The command `analyse_errors`."""

import json
from pathlib import Path

import pytest
import torch
from matplotlib.patches import Rectangle
from PIL import Image

from detection.analysis.analyse_errors import main
from detection.analysis.error_figure import MOST_CLASSES, draw_errors, draw_errors_by_class
from detection.analysis.tide import ErrorAnalysis, Errors

ERRORS = ["classification", "localisation", "both", "duplicate", "background", "missed"]


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Two cats and a dog in two pictures; `worse.json` takes one cat for a dog, `better/detections.json` finds all."""
    boxes = [(1, 3, [10, 10, 20, 20]), (2, 3, [40, 40, 30, 20]), (2, 8, [0, 0, 30, 30])]
    truth = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 100, "width": 100} for i in (1, 2)],
        "categories": [{"id": 3, "name": "cat|tom"}, {"id": 8, "name": "dog"}, {"id": 9, "name": "cow"}],
        "annotations": [
            {"id": n, "image_id": i, "category_id": c, "bbox": b, "area": 9, "iscrowd": 0}
            for n, (i, c, b) in enumerate(boxes)
        ],
    }
    found = [{"image_id": i, "category_id": c, "bbox": b, "score": 0.9 - n / 10} for n, (i, c, b) in enumerate(boxes)]
    (tmp_path / "better").mkdir()
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "better" / "detections.json").write_text(json.dumps(found))
    found[0]["category_id"] = 8
    (tmp_path / "worse.json").write_text(json.dumps(found))
    return tmp_path


def analyse(folder: Path, *detections: str, options: tuple[str, ...] = ()) -> None:
    files = [str(folder / name) for name in detections]
    output = ["--output", str(folder / "out")]
    main(["--annotations", str(folder / "truth.json"), "--detections", *files, *output, *options])


def test_two_runs(coco: Path, capsys: pytest.CaptureFixture) -> None:
    analyse(coco, "worse.json", "better", options=("--names", "VGG-16", "$ResNet$"))
    first, second = json.loads((coco / "out" / "errors.json").read_text())
    assert (first["name"], first["detections"]) == ("VGG-16", str(coco / "worse.json"))
    assert list(first["overall"]["lost"]) == ERRORS
    assert second["overall"] == {
        "ap": 100, "lost": dict.fromkeys(ERRORS, 0), "special": {"false positives": 0, "false negatives": 0},
    }  # fmt: skip
    # Of the two cats one is found: 51 of 101 recalls. The dog comes after the wrong one: a precision of 1/2.
    cat, dog = 100 * 51 / 101, 50
    assert first["per_class"]["cat|tom"]["ap"] == pytest.approx(cat)
    assert first["per_class"]["dog"]["ap"] == pytest.approx(dog)
    assert first["per_class"]["cow"] is None
    assert first["overall"]["lost"]["classification"] == pytest.approx(100 - (cat + dog) / 2)
    printed = capsys.readouterr().out
    assert (coco / "out" / "errors.md").read_text() in printed
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line[:1] == "|"]
    assert rows[2][:3] == ["VGG-16", "50.25", "49.75"]
    assert ["dog", "1", "50.00", "100.00", "+50.00", "50.0 / 0.0"] in [row[:6] for row in rows]
    assert ["cat/tom", "2", "50.50", "100.00", "+49.50", "49.5 / 0.0"] in [row[:6] for row in rows]
    assert "Without objects: cow." in printed
    assert "AP50 of $ResNet$ is 49.75 points above VGG-16's, a gain of recall and precision: objects not" in printed
    assert "By type it loses less to wrong classes (-49.8) (in dAP" in printed
    assert "largest for dog, 1 object (+50.0), and smallest for cat/tom, 2 objects (+49.5)." in printed
    for name in ("errors.png", "errors_by_class.png"):
        with Image.open(coco / "out" / name) as figure:
            assert min(figure.size) > 400


def test_one_run(coco: Path, capsys: pytest.CaptureFixture) -> None:
    analyse(coco, "worse.json")
    printed = capsys.readouterr().out
    assert "| worse " in printed
    assert "points" not in printed
    assert "gain" not in printed


def test_names_of_foreign_files_are_escaped(coco: Path, capsys: pytest.CaptureFixture) -> None:
    """What a terminal obeys, what breaks a table, and half a character that no encoding has."""
    truth = json.loads((coco / "truth.json").read_text())
    for category, name in zip(truth["categories"], ("c\x1b[31mat", "d\nog", "c\ud800ow"), strict=True):
        category["name"] = name
    (coco / "truth.json").write_text(json.dumps(truth))
    analyse(coco, "worse.json", "better")
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert r"| c\x1b[31mat |" in printed
    assert "| d og        |" in printed
    assert r"Without objects: c\ud800ow." in printed
    assert r"smallest for c\x1b[31mat, 2 objects (+49.5)" in printed
    assert (coco / "out" / "errors.md").read_text(encoding="utf-8") in printed


def test_what_no_single_error_costs_is_a_dash(coco: Path, capsys: pytest.CaptureFixture) -> None:
    """The only dog is missed, and a dog is seen where none is: mending one of them leaves an AP of 0."""
    found = json.loads((coco / "worse.json").read_text())
    found[2]["bbox"] = [60, 0, 30, 30]
    del found[0]
    (coco / "none.json").write_text(json.dumps(found))
    analyse(coco, "none.json", "better")
    printed = capsys.readouterr().out
    (row,) = (line for line in printed.splitlines() if line.startswith("| dog"))
    assert [cell.strip() for cell in row.split("|")[6:-1]] == ["- / 0.0"] * 6
    assert "-: nothing of the class was found" in printed
    assert "a gain of recall" in printed


def test_names_too_long_or_in_other_scripts_fit(coco: Path) -> None:
    truth = json.loads((coco / "truth.json").read_text())
    for category, name in zip(truth["categories"], ("x" * 170, "\u732b", "cow"), strict=True):
        category["name"] = name
    (coco / "truth.json").write_text(json.dumps(truth))
    analyse(coco, "worse.json", "better", options=("--names", "y" * 170, "z" * 170))  # pytest makes warnings errors
    with Image.open(coco / "out" / "errors.png") as figure:
        assert figure.width == 1725


def test_each_class_has_a_bar_of_its_errors_for_each_run(coco: Path) -> None:
    analyse(coco, "worse.json", "better")
    runs = json.loads((coco / "out" / "errors.json").read_text())
    analyses = {}
    for run in runs:
        per_class = {name: Errors(**errors) if errors else None for name, errors in run["per_class"].items()}
        analyses[run["name"]] = ErrorAnalysis(Errors(**run["overall"]), per_class, run["counts"])
    axes = draw_errors_by_class(analyses).axes[0]
    shown = [text.get_text() for text in axes.get_yticklabels()]
    assert shown == ["dog", "cat|tom"]
    bars = [bar for bar in axes.patches if isinstance(bar, Rectangle)]
    widths = [sum(bar.get_width() for bar in bars if bar.get_y() <= y <= bar.get_y() + bar.get_height())
              for y in (-0.2, 0.2, 0.8, 1.2)]  # fmt: skip
    expected = [sum(runs[run]["per_class"][name]["lost"].values()) for name in shown for run in (0, 1)]
    assert widths == pytest.approx(expected)
    assert max(expected) > 49


def test_a_voc_folder(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    year = tmp_path / "VOC2007"
    for name in ("Annotations", "ImageSets/Main"):
        (year / name).mkdir(parents=True)
    (year / "ImageSets/Main/mine.txt").write_text("a\n")
    (year / "Annotations/a.xml").write_text(
        "<annotation><size><width>90</width><height>90</height></size><object><name>cat</name><difficult>0</difficult>"
        "<bndbox><xmin>11</xmin><ymin>11</ymin><xmax>30</xmax><ymax>30</ymax></bndbox></object></annotation>"
    )
    for run, line in (("near", "a 0.9 16 11 37 30"), ("right", "a 0.9 11 11 30 30")):
        (tmp_path / run).mkdir()
        (tmp_path / run / "comp4_det_mine_cat.txt").write_text(line)
    options = ["--annotations", str(year), "--split", "mine", "--output", str(tmp_path / "out"), "--detections"]
    main([*options, str(tmp_path / "near"), str(tmp_path / "right")])
    near, right = json.loads((tmp_path / "out" / "errors.json").read_text())
    assert near["name"] == "near"
    assert near["overall"]["ap"] == 100  # 15 of 27 columns
    assert right["overall"]["ap"] == 100
    (tmp_path / "near" / "comp4_det_mine_cat.txt").write_text("a 0.9 21 11 37 30")
    main([*options, str(tmp_path / "near"), str(tmp_path / "right"), "--overwrite"])
    near, right = json.loads((tmp_path / "out" / "errors.json").read_text())
    assert near["overall"]["lost"]["localisation"] == 100
    assert "By type it loses less to wrong places (-100.0)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("detections", "options", "message"),
    [
        (["none.json"], [], "none.json: no such file"),
        (["truth.json"], [], "truth.json: not a JSON list of detections, as a COCO results file is"),
        (["worse.json", "better"], ["--names", "VGG"], "--names: 1 for 2 run(s)"),
        (["worse.json", "worse.json"], [], "two runs are called worse"),
        (["worse.json"], ["--annotations", "/nowhere.json"], "/nowhere.json: no such file"),
        (["worse.json"], ["--output", "/proc/nowhere"], "/proc/nowhere/errors.png: can't be written"),
    ],
)
def test_bad_input(
    coco: Path, capsys: pytest.CaptureFixture, detections: list[str], options: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        analyse(coco, *detections, options=tuple(options))
    assert caught.value.code == 2
    written = capsys.readouterr()
    assert message in written.err
    assert written.err.count("\n") == 1
    assert not (coco / "out").exists()


def test_results_are_not_overwritten(coco: Path, capsys: pytest.CaptureFixture) -> None:
    analyse(coco, "better")
    with pytest.raises(SystemExit):
        analyse(coco, "worse.json")
    assert "replace them with --overwrite" in capsys.readouterr().err
    assert json.loads((coco / "out" / "errors.json").read_text())[0]["name"] == "better"


def test_of_many_classes_the_figure_shows_those_that_differ_most() -> None:
    aps = torch.rand(2, 80, generator=torch.Generator().manual_seed(0)) * 100
    zero = dict.fromkeys(ERRORS, 0.0)
    special = {"false positives": 0.0, "false negatives": 0.0}

    def analysis(run: int) -> ErrorAnalysis:
        per_class: dict[str, Errors | None] = {f"c{k}": Errors(float(aps[run, k]), zero, special) for k in range(80)}
        return ErrorAnalysis(Errors(float(aps[run].mean()), zero, special), per_class, {})

    figure = draw_errors({"a": analysis(0), "b": analysis(1)})
    shown = [int(text.get_text()[1:]) for text in figure.axes[1].get_yticklabels()]
    gains = aps[1] - aps[0]
    assert set(shown) == set(gains.abs().argsort(descending=True)[:MOST_CLASSES].tolist())
    assert gains[shown].tolist() == sorted(gains[shown].tolist(), reverse=True)
    assert "the 30 of 80 whose AP50 differs most" in figure.axes[1].get_title()
