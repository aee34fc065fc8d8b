"""Training curves: what is read of a run, how it is smoothed, and that the figure shows it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbones.analysis.curves import Curve, distinct, read_curve, smooth
from backbones.analysis.plot_curves import draw_curves, main

RECORDED = sorted((Path(__file__).parents[2] / "results" / "imagenette").glob("*.json"))
LINES: list[dict[str, Any]] = [
    {"step": 10, "split": "train", "loss": 2.0, "top1_error": 80.0, "lr": 0.1},
    {"step": 20, "split": "train", "loss": 1.0, "top1_error": 60.0, "lr": 0.1},
    {"step": 20, "split": "test", "top1_error": 55.0, "top5_error": 5.0},
    {"step": 30, "split": "train", "loss": 0.5, "top1_error": 40.0, "lr": 0.1},
]
RECORD = {"config": {"model": {"name": "resnet18", "options": {"width": 4}}}}
TRAIN, TEST = [[10, 80], [20, 60], [30, 40]], [[20, 55]]


def write_run(folder: Path, text: str | None = None, record: Any = RECORD) -> Path:
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "metrics.jsonl").write_text(text or "".join(json.dumps(line) + "\n" for line in LINES))
    return folder


def test_a_run_folder_and_its_recorded_run_are_alike(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (tmp_path / "recorded.json").write_text(json.dumps(RECORD | {"curve": LINES}))
    for path in (folder, tmp_path / "recorded.json"):
        curve = read_curve(path)
        assert curve.label == "resnet18 (width 4)"
        assert curve.train.tolist() == TRAIN
        assert curve.test.tolist() == TEST


def test_lines_that_are_no_errors_are_left_out(tmp_path: Path) -> None:
    """A run that was killed leaves a cut line; nothing in a file can break a figure."""
    bad = ['{"step": 40, "split": "train", "top1_err', "", "[]", "7", '{"step": 40}', "[" * 100_000]
    for step, error in [("40", "NaN"), ("40", "Infinity"), ("40", "101"), ("-1", "5"), ("1e3", "5"), ("40", '"5"'),
                        ("9" * 30, "5"), ("40", "9" * 400), ("null", "5")]:  # fmt: skip
        bad.append(f'{{"step": {step}, "split": "train", "top1_error": {error}}}')
    good = [json.dumps(line) for line in LINES]
    curve = read_curve(write_run(tmp_path / "run", "\n".join([*good[:2], *bad, *good[2:], *bad])))
    assert curve.train.tolist() == TRAIN
    assert curve.test.tolist() == TEST


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30), st.integers(0, 10))
def test_smoothing_is_the_mean_of_the_neighbours(values: list[float], half: int) -> None:
    out = smooth(np.array(values), 2 * half + 1)
    expected = [np.mean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]
    assert out == pytest.approx(expected, abs=1e-9)


def test_labels_that_are_alike_are_numbered() -> None:
    assert distinct(["a", "b", "a"]) == ["a #1", "b", "a #2"]


def curve(label: str, steps: list[int], test_steps: list[int]) -> Curve:
    train, test = (np.array([[s, 90 - 50 * s / max(steps)] for s in points]) for points in (steps, test_steps))
    return Curve(label, train, test - [0, 5])


def test_the_figure_shows_the_numbers() -> None:
    """Fig. 4: thin lines in training, bold lines in testing, iterations by the ten thousand, a colour for each run."""
    left = [curve("plain-18", [10_000, 20_000, 60_000], [20_000, 60_000]), curve("plain-34", [10_000], [10_000])]
    right = [curve("ResNet-18", [100, 200], [200])]
    figure = draw_curves([left, right], ["plain", "ResNet"], smoothing=1, error_range=[20, 60])
    first, second = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["plain", "ResNet"]
    assert (first.get_xlabel(), second.get_xlabel()) == ("iterations (1e4)", "iterations")
    assert [text.get_text() for text in first.get_legend().get_texts()] == ["plain-18", "plain-34"]
    assert first.get_ylim() == second.get_ylim() == (20, 60)
    drawn = [line for line in first.lines if len(line.get_xdata())]
    for run, (thin, bold) in zip(left, [drawn[:2], drawn[2:]], strict=True):
        for line, points in [(thin, run.train), (bold, run.test)]:
            assert np.allclose(line.get_xydata(), points / [1e4, 1])
        assert thin.get_linewidth() < bold.get_linewidth()
        assert thin.get_color() == bold.get_color()
    assert drawn[0].get_color() != drawn[2].get_color()
    assert np.allclose(second.lines[1].get_xydata(), right[0].train)


def test_smoothing_is_stated() -> None:
    run = curve("a", [1, 2, 3], [3])
    smoothed = draw_curves([[run]], [], smoothing=3, error_range=[])
    assert "mean over 3 logged points" in smoothed.get_supxlabel()
    assert np.allclose(smoothed.axes[0].lines[1].get_ydata(), smooth(run.train[:, 1], 3))
    assert "mean" not in draw_curves([[run]], [], smoothing=1, error_range=[]).get_supxlabel()


@pytest.mark.parametrize(("ending", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_the_command_with_recorded_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str, start: bytes
) -> None:
    output = tmp_path / "new" / f"fig4.{ending}"
    main(["--run", *map(str, RECORDED[:2]), "--output", str(output), "--labels", "x", "y", "--panels", "1", "1"])
    assert output.read_bytes().startswith(start)
    assert [path.name for path in output.parent.iterdir()] == [output.name]
    for line, label, file in zip(capsys.readouterr().out.splitlines(), "xy", RECORDED, strict=False):
        record = json.loads(file.read_text())
        assert line.startswith(f"{label}: {record['config']['train']['steps']:,} iterations")
        assert f"test {record['results']['center']['top1_error']:.2f} %" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--output", "f.jpg"], ["f.jpg", ".svg"]),
        (["--panels", "2"], ["panels 2", "1 run"]),
        (["--panels", "1", "0"], ["panels 1 0"]),
        (["--labels", "a", "b"], ["labels", "2 for 1"]),
        (["--titles", "a", "b"], ["titles", "2 for 1"]),
        (["--smoothing", "4"], ["smoothing 4"]),
        (["--error_range", "60", "20"], ["error_range"]),
        (["--error_range", "nan", "20"], ["error_range"]),
        (["--run", "nowhere"], ["nowhere"]),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]
) -> None:
    refuse(["--run", str(write_run(tmp_path / "run")), "--output", str(tmp_path / "f.png"), *arguments], words, capsys)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", ["JSON"]),
        ("[]", ["record"]),
        ('{"config": 1}', ["curve"]),
        ('{"curve": {}}', ["curve"]),
        ('{"curve": [{"step": 1, "split": "test", "AP": 3}]}', ["top1_error"]),
        ("[" * 100_000, ["JSON"]),
    ],
)
def test_files_that_are_no_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: list[str]):
    (tmp_path / "odd.json").write_text(text)
    refuse(["--run", str(tmp_path / "odd.json"), "--output", str(tmp_path / "f.png")], ["odd.json", *words], capsys)


def test_odd_configs_do_not_matter(tmp_path: Path) -> None:
    for place, config in enumerate([None, [], {"model": 3}, {"model": {"name": []}}]):
        assert read_curve(write_run(tmp_path / f"run{place}", record={"config": config})).label == f"run{place}"
    odd = {"model": {"name": "n" * 500, "options": 3}}
    assert len(read_curve(write_run(tmp_path / "long", record={"config": odd})).label) == 60


def test_names_show_as_they_are(tmp_path: Path) -> None:
    """Dollars would be a formula, here one that can't be read, and an underscore would hide the run."""
    names = [r"$\frac{$", "_hidden", "100% $"]
    runs = [write_run(tmp_path / name, record={}) for name in names]
    assert [read_curve(run).label for run in runs] == names
    main(["--run", *map(str, runs), "--output", str(tmp_path / "f.svg"), "--titles", "$$x_$"])
    figure = draw_curves([[read_curve(run) for run in runs]], [], smoothing=1, error_range=[])
    assert len(figure.axes[0].get_legend().get_texts()) == 3


def refuse(arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    message = capsys.readouterr().err
    assert exit_.value.code == 2
    assert message.count("\n") == 1
    assert all(word in message for word in words)
