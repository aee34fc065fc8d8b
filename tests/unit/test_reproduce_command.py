"""The command `reproduce` on run folders that are written here: what it shows, and what it would train."""

import fcntl
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from matplotlib.figure import Figure

from backbones.analysis.responses import NetworkResponses
from backbones.config import ClassificationData
from backbones.jobs import Job
from backbones.reproduce import command, figures
from backbones.reproduce.command import main
from backbones.reproduce.paper import read_paper
from backbones.reproduce.requests import request

PAPER: dict[str, Any] = {
    "machine": {"name": "a GPU", "price": 2.0, "cpu_factor": 100},
    "data": {"own": {"title": "the data"}, "other": {"title": "other data", "stands_for": "own", "note": "Noise."}},
    "experiments": {
        name: {"label": f"net {name}", "config": f"{name}.yaml", "data": "own", "gpu_hours": hours}
        for name, hours in {"a": 1.0, "b": 3.0, "c": 2.0}.items()
    },
    "tables": {
        "t": {
            "title": "T",
            "metric": "center.top1_error",
            "unit": "%",
            "rows": [{"experiment": "a", "paper": 8.0, "band": 1.0}, {"experiment": "b"}, {"experiment": "c"}],
            "claims": [{"text": "a is better", "conditions": [{"experiment": "a", "below": 50.0}]}],
        }
    },
    "figures": {
        "f": {"title": "F", "curves": {"error_range": [0, 20], "panels": [{"title": "p", "experiments": ["a", "b"]}]}},
        "g": {"title": "G", "responses": {"experiments": ["a"], "pictures": 4}},
    },
}


@pytest.fixture
def paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The declarative file. No process is ever started."""
    for name in PAPER["experiments"]:
        (tmp_path / f"{name}.yaml").write_text(
            "model: {name: cifar_resnet8}\ndata: {name: cifar10, test_split: test}\ntrain: {steps: 100}\n"
        )
    (tmp_path / "paper.yaml").write_text(yaml.safe_dump(PAPER))
    (tmp_path / "data").mkdir()
    monkeypatch.setattr("backbones.jobs.subprocess.Popen", None)
    return tmp_path / "paper.yaml"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """Figures by name, in place of their pictures, which take long to write."""
    found: dict[str, Figure] = {}

    def save(figure: Figure, path: Path) -> None:
        found[path.stem] = figure
        path.touch()

    monkeypatch.setattr(figures, "save_figure", save)
    return found


def write_run(paper: Path, name: str, seed: int = 0, *, data: str = "own", status: str = "finished") -> Path:
    """A run folder as the training command leaves it; its training error is 30 + seed at every step."""
    content = read_paper(str(paper))
    config = request(content.experiments[name], paper.parent, content.data[data], scale=1.0, options={}).config
    folder = paper.parent / "runs" / data / f"{name}-seed{seed}"
    (folder / "checkpoints").mkdir(parents=True)
    record = {"status": status, "config": config | {"seed": seed, "data": {"root": "/where/it/was"}}}
    (folder / "run.json").write_text(json.dumps(record | {"results": {"center": {"top1_error": 8.25}}}))
    lines = [{"step": step, "split": "train", "top1_error": 30.0 + seed} for step in (20, 40)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def run(paper: Path, *words: str) -> None:
    folder = paper.parent
    main([*words, "--paper", str(paper), "--runs", str(folder / "runs"), "--output", str(folder / "out")])


def refusal(paper: Path, capsys: pytest.CaptureFixture, *words: str) -> str:
    with pytest.raises(SystemExit) as end:
        run(paper, *words)
    assert end.value.code == 2
    return capsys.readouterr().err


def test_an_axis_is_the_papers_only_where_numbers_are(paper: Path, drawn: dict[str, Figure]) -> None:
    ranges = {}
    for data in ("own", "other"):
        write_run(paper, "a", data=data)
        run(paper, "f", "--experiments", "a", "--data", data)
        ranges[data] = drawn["f"].axes[0].get_ylim()
        assert (paper.parent / "out" / data / "f.png").exists()
    assert ranges["own"] == (0, 20)
    assert ranges["other"][1] > 30  # the training error is in the picture


def test_a_figure_says_what_it_is_of(paper: Path, drawn: dict[str, Figure], capsys: pytest.CaptureFixture) -> None:
    write_run(paper, "a", data="other")
    run(paper, "t", "f", "--experiments", "a", "--data", "other")
    describing, warning = "other data; the paper's schedule", "NOT COMPARABLE with the paper: not the paper's data"
    assert drawn["f"].get_supxlabel().endswith(f"\n{describing}")
    printed = capsys.readouterr().out
    assert [printed.count(text) for text in (describing, warning)] == [1, 1]  # for the whole command
    folder = paper.parent / "out" / "other"
    written = (folder / "t.md").read_text()
    assert [written.count(text) for text in (describing, warning)] == [1, 1]
    table = json.loads((folder / "t.json").read_text())
    assert (table["comparable"], table["circumstances"]) == (False, describing)
    assert [row["verdict"] for row in table["rows"]] == ["no verdict"]
    assert [claim["outcome"] for claim in table["claims"]] == ["holds"]  # orderings can be judged all the same


def test_of_several_seeds_a_figure_shows_the_first_that_is_finished(paper: Path, drawn: dict[str, Figure]) -> None:
    write_run(paper, "a", 1)
    write_run(paper, "a", 2)
    (write_run(paper, "a", 0) / "run.json").write_text("{")
    with pytest.raises(SystemExit):  # the first folder can't be used
        run(paper, "f", "--experiments", "a", "--seeds", "0", "1", "2")
    thin = next(line for line in drawn["f"].axes[0].lines if len(line.get_ydata()))
    assert list(thin.get_ydata()) == [31.0, 31.0]


def test_what_is_not_finished_is_said_to_be(
    paper: Path, drawn: dict[str, Figure], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(command, "run_jobs", lambda jobs, *rest, **options: [])
    write_run(paper, "a")
    (write_run(paper, "b", status="interrupted") / "checkpoints" / "step_00000040.pt").touch()
    run(paper, "f", "--root", str(paper.parent / "data"))
    _, labels = drawn["f"].axes[0].get_legend_handles_labels()
    assert labels == ["net a", "net b (interrupted at step 40)"]
    assert "b-seed0 is not finished: interrupted at step 40\n" in capsys.readouterr().out


def test_responses_are_those_to_test_pictures_where_they_are_now(
    paper: Path, drawn: dict[str, Figure], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[ClassificationData] = []

    def measure(path: Path, data: ClassificationData, *, count: int, label: str) -> NetworkResponses:
        asked.append(data)
        return NetworkResponses(label, residual=True, layers=[])

    monkeypatch.setattr(figures, "measure_run", measure)
    monkeypatch.setattr(figures, "draw_responses", lambda networks: Figure(layout="constrained"))
    write_run(paper, "a")
    run(paper, "g", "--root", str(paper.parent / "data"))
    run(paper, "g")
    assert [(data.name, data.test_split) for data in asked] == [("cifar10", "test")] * 2
    assert [data.root for data in asked] == [str(paper.parent / "data"), "/where/it/was"]
    written = json.loads((paper.parent / "out" / "own" / "g.json").read_text())
    assert written["circumstances"] == "the data; the paper's schedule"


def test_no_earlier_figure_stays_where_none_is_drawn(paper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "run_jobs", lambda jobs, *rest, **options: [])
    folder = paper.parent / "out" / "own"
    folder.mkdir(parents=True)
    earlier = [folder / name for name in ("f.png", "g.png", "g.json")]
    for file in [*earlier, folder / "other.png"]:
        file.touch()
    run(paper, "f", "g", "--root", str(paper.parent / "data"))
    assert list(folder.iterdir()) == [folder / "other.png"]


@pytest.mark.parametrize(("jobs", "order"), [("1", "abc"), ("2", "bca")])
def test_beside_each_other_the_longest_start_first(
    paper: Path, monkeypatch: pytest.MonkeyPatch, jobs: str, order: str
) -> None:
    started: list[str] = []

    def run_jobs(queue: list[Job], folder: Path, **options: Any) -> list[Job]:
        started.extend(job.name for job in queue)
        return []

    monkeypatch.setattr(command, "run_jobs", run_jobs)
    run(paper, "t", "--jobs", jobs, "--root", str(paper.parent / "data"))
    assert started == [f"{name}-seed0" for name in order]


def test_a_run_that_another_process_trains_is_left_alone(paper: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write_run(paper, "a", status="running")
    with folder.with_name("a-seed0.log").open("w") as log:
        log.write("process 4321\n")
        log.flush()
        fcntl.flock(log, fcntl.LOCK_EX)
        error = refusal(paper, capsys, "t", "--root", str(paper.parent / "data"))
    assert error == "error: a-seed0: another process trains here now (process 4321): wait for it, or end it\n"


def test_folders_that_cant_be_used_are_counted_apart(
    paper: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def run_jobs(queue: list[Job], folder: Path, **options: Any) -> list[Job]:
        queue[0].failure = "b-seed0 failed: no more cheese"
        return queue[:1]

    monkeypatch.setattr(command, "run_jobs", run_jobs)
    folder = write_run(paper, "a")
    record = json.loads((folder / "run.json").read_text())
    record["config"]["optimizer.lr"] = 7.0
    (folder / "run.json").write_text(json.dumps(record))
    reason = f"{folder}: its run had optimizer.lr = 7.0, now 0.1 is asked for: set it back, name other --runs"
    run(paper, "t", "--plan")
    plan = capsys.readouterr().out
    assert re.search(r"a-seed0 \| broken +\|", plan)
    assert f"\n{reason}" in plan
    lines = refusal(paper, capsys, "t", "--root", str(paper.parent / "data")).splitlines()
    assert lines[0] == "b-seed0 failed: no more cheese"
    assert lines[1].startswith(reason)
    assert lines[2] == (
        "error: 1 of 3 run(s) failed, see above; the same command tries them again; "
        "1 run folder(s) can't be used, see above"
    )


def test_a_trial_or_another_recipe_judges_nothing(
    paper: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(command, "run_jobs", lambda jobs, *rest, **options: [])
    run(paper, "t", "--scale", "smoke", "--root", str(paper.parent / "data"))
    printed = capsys.readouterr().out
    assert "What the paper shows (not judged: these runs are not trained as the paper's):" in printed
    assert "- **not judged**: a is better (net a - below 50)" in printed
    table = json.loads((paper.parent / "out" / "own-xsmoke" / "t.json").read_text())
    assert [claim["outcome"] for claim in table["claims"]] == ["not judged"]


def test_options_in_another_form_are_shown_the_right_one(paper: Path, capsys: pytest.CaptureFixture) -> None:
    error = refusal(paper, capsys, "t", "--set", "precision=bf16")
    assert error == "error: set precision=bf16: give options with their values as '{precision: bf16}'\n"
