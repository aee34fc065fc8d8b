"""The folder of a run: what it records, and what it refuses to touch."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from backbones.engine.outputs import check_writable
from backbones.engine.run import RunFolder, open_run
from backbones.errors import RunFolderError


@dataclass
class Train:
    steps: int = 10
    workers: int = 0


@dataclass
class Config:
    train: Train = field(default_factory=Train)
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0


def run_in(path: Path, config: Config | None = None, **changes: Any) -> Any:
    """Opens a run folder, with the flags off that are not given."""
    flags = {"resume": False, "overwrite": False, "allow_mismatch": False, "data_fingerprint": "abc", "processes": 1}
    return open_run(str(path), config or Config(), **flags | changes)


def record(path: Path) -> dict[str, Any]:
    return json.loads((path / "run.json").read_text())


def steps(path: Path) -> list[tuple[int, str]]:
    return [
        (line["step"], line["split"]) for line in map(json.loads, (path / "metrics.jsonl").read_text().splitlines())
    ]


def test_a_finished_run_says_all_that_is_needed(tmp_path: Path) -> None:
    with run_in(tmp_path / "a" / "run") as run:
        assert record(run.path)["status"] == "running"
        run.log(1, "train", {"loss": 0.5})
        run.update(results={"center": {"top1_error": 3.0}})
    written = record(run.path)
    assert written["status"] == "finished"
    assert written["results"] == {"center": {"top1_error": 3.0}}
    assert written["config"] == {"train": {"steps": 10, "workers": 0}, "options": {}, "seed": 0}
    assert (written["data_fingerprint"], written["processes"], written["seed"]) == ("abc", 1, 0)
    assert written["versions"].keys() >= {"torch", "torchvision", "python"}
    assert written["hardware"]["cores"] >= 1
    assert written["command"]
    assert written["wall_clock_seconds"] >= 0
    assert json.loads((run.path / "metrics.jsonl").read_text()) == {"step": 1, "split": "train", "loss": 0.5}
    assert list(run.path.glob("events.out.tfevents.*"))


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two"), run_in(tmp_path / "run"):
        raise ValueError("one\ntwo")
    assert record(tmp_path / "run")["status"] == "failed"
    assert record(tmp_path / "run")["error"] == "ValueError: one two"
    with run_in(tmp_path / "run", resume=True) as run:
        run.update()
        assert record(tmp_path / "run")["error"] is None
    assert record(tmp_path / "run")["status"] == "finished"


def test_a_run_that_can_not_go_on_keeps_its_record(tmp_path: Path) -> None:
    with run_in(tmp_path):
        pass
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(ValueError, match="damaged"), run_in(tmp_path, resume=True):
        raise ValueError("damaged checkpoint")  # before the first update
    assert (tmp_path / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    "line", ["5", "{}", '{"step": "x", "split": "train"}', '{"step": 1}', "\udcff", '{"step": 1, "spl']
)
def test_foreign_lines_of_metrics_are_dropped_on_resume(tmp_path: Path, line: str) -> None:
    good = '{"step": 1, "split": "train", "loss": 2.0}'
    (tmp_path / "metrics.jsonl").write_text(f"{good}\n{line}\n", errors="surrogateescape")
    run = RunFolder(tmp_path, {"wall_clock_seconds": "abc"})
    run.forget_after(1)
    run.close()
    assert (tmp_path / "metrics.jsonl").read_text() == good + "\n"


def test_an_interrupted_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), run_in(tmp_path / "run"):
        raise KeyboardInterrupt
    assert record(tmp_path / "run")["status"] == "interrupted"


def test_no_output_is_refused() -> None:
    with (
        pytest.raises(RunFolderError, match="--output"),
        open_run(None, Config(), resume=False, overwrite=False, allow_mismatch=False),
    ):
        pass


def test_a_run_is_neither_replaced_nor_continued_unasked(tmp_path: Path) -> None:
    with run_in(tmp_path / "run") as run:
        run.log(1, "train", {"loss": 1.0})
    before = {p: p.read_bytes() for p in run.path.rglob("*")}
    with pytest.raises(RunFolderError, match=r"--resume.*--overwrite"), run_in(run.path):
        pass
    assert {p: p.read_bytes() for p in run.path.rglob("*")} == before


def test_overwrite_starts_anew_and_leaves_foreign_files(tmp_path: Path) -> None:
    with run_in(tmp_path) as run:
        run.log(1, "train", {"loss": 1.0})
        run.checkpoints.mkdir()
        (run.checkpoints / "step_00000001.pt").write_bytes(b"1")
        run.weights.write_bytes(b"2")
    (tmp_path / "notes.txt").write_text("mine")
    with run_in(tmp_path, Config(seed=1), overwrite=True):
        assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "notes.txt", "run.json"]
        assert record(tmp_path)["seed"] == 1
        assert record(tmp_path)["results"] is None


def test_what_torchrun_starts_anew_does_not_begin_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_in(tmp_path) as run:
        run.log(1, "train", {"loss": 1.0})
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    with pytest.raises(RunFolderError, match="would remove what they had done: give --resume"):
        run_in(tmp_path, overwrite=True).__enter__()
    assert (tmp_path / "metrics.jsonl").exists()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    with run_in(tmp_path, overwrite=True):
        assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.parametrize("flag", ["resume", "overwrite", None])
def test_a_folder_of_something_else_is_refused_and_untouched(tmp_path: Path, flag: str | None) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunFolderError, match="no run"), run_in(tmp_path, **{flag: True} if flag else {}):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RunFolderError, match="file"), run_in(path):
            pass
    assert (tmp_path / "file").read_text() == "mine"


def test_a_kill_before_the_first_record_is_no_foreign_file(tmp_path: Path) -> None:
    (tmp_path / ".run.json.tmp").write_text('{"stat')
    with run_in(tmp_path, resume=True):
        pass
    assert record(tmp_path)["status"] == "finished"


@pytest.mark.parametrize(
    ("config", "changes", "named"),
    [
        (Config(seed=1), {}, "seed = 0, now it is 1"),
        (Config(train=Train(steps=20)), {}, "train.steps = 10, now it is 20"),
        (Config(options={"width": 4}), {}, "options.width = None, now it is 4"),
        (Config(), {"data_fingerprint": "xyz"}, "data_fingerprint = abc, now it is xyz"),
        (Config(), {"processes": 2}, "processes = 1, now it is 2"),
    ],
)
def test_another_run_is_not_resumed_unless_asked_for(tmp_path: Path, config: Config, changes: dict, named: str) -> None:
    with run_in(tmp_path):
        pass
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(RunFolderError, match=named), run_in(tmp_path, config, resume=True, **changes):
        pass
    assert (tmp_path / "run.json").read_bytes() == before
    with run_in(tmp_path, config, resume=True, allow_mismatch=True, **changes) as run:
        run.update()
        assert record(tmp_path)["config"]["seed"] == config.seed


def test_a_run_that_is_older_than_an_option_had_its_default(tmp_path: Path) -> None:
    with run_in(tmp_path):
        pass
    older = record(tmp_path)
    del older["config"]["train"]["steps"]
    del older["config"]["seed"]
    (tmp_path / "run.json").write_text(json.dumps(older))
    with run_in(tmp_path, resume=True):
        pass
    with (
        pytest.raises(RunFolderError, match=r"train\.steps = 10, now it is 20"),
        run_in(tmp_path, Config(train=Train(steps=20)), resume=True),
    ):
        pass


def test_the_number_of_workers_may_change(tmp_path: Path) -> None:
    for workers in (0, 3):
        with run_in(tmp_path, Config(train=Train(workers=workers)), resume=True):
            pass


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00"])
def test_a_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunFolderError, match=r"run\.json.*--allow_mismatch"), run_in(tmp_path, resume=True):
        pass
    with run_in(tmp_path, resume=True, allow_mismatch=True):
        pass
    assert record(tmp_path)["status"] == "finished"


def test_tensorboard_shows_what_the_log_says(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = RunFolder(tmp_path, {})
    for step in (2, 4, 6):
        run.log(step, "train", {"loss": float(step), "lr": 0.5})
    run.forget_after(4)
    run.log(5, "test", {"top1_error": 50.0})
    run.close()
    shown = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in shown.Scalars("train/loss")] == [(2, 2.0), (4, 4.0)]
    assert [(event.step, event.value) for event in shown.Scalars("train/lr")] == [(2, 0.5), (4, 0.5)]
    assert [(event.step, event.value) for event in shown.Scalars("test/top1_error")] == [(5, 50.0)]
    gone = RunFolder(tmp_path / "gone", {})
    gone._add_scalars(1, "train", {"loss": 1.0})
    gone._add_scalars(2, "train", {"loss": 1.0})
    assert capsys.readouterr().out.count("TensorBoard's events can't be written (No such file or directory)") == 1


def test_a_resumed_run_forgets_what_it_will_write_again(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, {})
    for step in (2, 4, 6):
        run.log(step, "train", {"loss": float(step)})
        run.log(step, "test", {"top1_error": 50.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "spl')  # a kill cut it in two
    run.forget_after(4, {6})
    assert steps(tmp_path) == [(2, "train"), (2, "test"), (4, "train"), (4, "test")]
    run.forget_after(4, {4})  # the run was killed after its last step: its test comes again
    assert steps(tmp_path) == [(2, "train"), (2, "test"), (4, "train")]
    run.forget_after(0, {6})
    assert steps(tmp_path) == []
    run.close()


def test_wall_clock_adds_up_over_resumes(tmp_path: Path) -> None:
    with run_in(tmp_path):
        pass
    (tmp_path / "run.json").write_text(json.dumps(record(tmp_path) | {"wall_clock_seconds": 100.0}))
    with run_in(tmp_path, resume=True):
        pass
    assert 100 <= record(tmp_path)["wall_clock_seconds"] < 160


def test_whether_a_file_can_be_written_is_tried(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "results.json")
    assert list((tmp_path / "new").iterdir()) == []
    with pytest.raises(RunFolderError, match="can't be written"):
        check_writable(Path("/proc/results.json"))  # the folder is there, but takes no file
    with pytest.raises(RunFolderError, match="can't be written"):
        check_writable(tmp_path / ("x" * 300))
