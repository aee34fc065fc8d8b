"""Runs on disk, whole, stopped and hostile; what is asked of them; the plan."""

import fcntl
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbones.errors import ConfigError, UserError
from backbones.reproduce.figures import first_numbers
from backbones.reproduce.paper import Beginning, DataSet, Experiment, Machine
from backbones.reproduce.plan import PlannedRun, duration, format_plan, job, run_folder
from backbones.reproduce.requests import Request, request, scaled
from backbones.reproduce.runs import Run, find_run

ASKED = Request(
    "backbones.train", ["--config", "a.yaml"], {"train.steps": 100, "model.name": "a"}, {"new.option": False}, 100, 1.0
)
RECORD = {
    "status": "finished",
    "config": {"train": {"steps": 100}, "model": {"name": "a"}, "seed": 3, "new": {"option": False}},
    "threads": 2,
    "results": {"center": {"top1_error": 8.5}},
}
ASKED.config["new.option"] = False


def find(folder: Path, seed: int = 3) -> Run:
    return find_run("a", seed, folder, ASKED)


def write(folder: Path, record: Any, *steps: int) -> Path:
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(record if isinstance(record, str) else json.dumps(record))
    for step in steps:
        (folder / "checkpoints" / f"step_{step:08d}.pt").touch()
    return folder


def test_how_far_a_run_is(tmp_path: Path) -> None:
    assert find(tmp_path / "a-seed3").state == "to do"
    finished = find(write(tmp_path / "finished", RECORD, 90, 100))
    assert (finished.state, finished.step, finished.number("center.top1_error")) == ("finished", 100, 8.5)
    interrupted = find(write(tmp_path / "interrupted", RECORD | {"status": "interrupted"}, 20, 40))
    assert (interrupted.state, interrupted.step, interrupted.threads) == ("interrupted", 40, 2)
    assert interrupted.number("center.top1_error") is None  # whatever an earlier end left there
    killed = find(write(tmp_path / "killed", RECORD | {"status": "running"}))
    assert (killed.state, killed.step) == ("interrupted", 0)
    failed = find(write(tmp_path / "failed", RECORD | {"status": "failed", "error": "DivergedError: nan"}))
    assert (failed.state, failed.reason) == ("failed", "DivergedError: nan")


def test_a_process_at_work_is_seen_by_its_lock(tmp_path: Path) -> None:
    run = write(tmp_path / "a-seed3", RECORD | {"status": "running"}, 40)
    with (tmp_path / "a-seed3.log").open("w") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        assert (find(run).state, find(run).step, find(run).reason) == ("running", 40, "")
        log.write("process 123\nstep 1\n")
        log.flush()
        assert find(run).reason == "process 123"
    assert find(run).state == "interrupted"


@pytest.mark.parametrize(
    "record",
    ["", "{", "[]", "null", '"x"', "[" * 100_000, '{"config": 3}', '{"status": "finished"}', "\x00\xff", '{"a":1e999'],
)
def test_a_broken_record_costs_its_own_row(tmp_path: Path, record: str) -> None:
    found = find(write(tmp_path / "a", record))
    assert found.state == "broken"
    assert str(tmp_path / "a") in found.reason
    assert len(found.reason.splitlines()) == 1
    assert found.number("center.top1_error") is None


def test_foreign_and_huge_folders_are_broken(tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").touch()
    assert find(tmp_path / "foreign").state == "broken"
    (tmp_path / "file").touch()
    assert find(tmp_path / "file").state == "broken"
    write(tmp_path / "huge", "")
    with (tmp_path / "huge" / "run.json").open("w") as file:
        file.truncate(2**33)
    assert find(tmp_path / "huge").state == "broken"
    write(tmp_path / "folder", RECORD)
    (tmp_path / "folder" / "run.json").unlink()
    (tmp_path / "folder" / "run.json").mkdir()
    assert find(tmp_path / "folder").state == "broken"


@pytest.mark.parametrize(
    ("results", "number"),
    [
        ({"center": {"top1_error": 8}}, 8.0),
        ({"center": {"top1_error": True}}, None),
        ({"center": {"top1_error": "8.5"}}, None),
        ({"center": {"top1_error": float("nan")}}, None),
        ({"center": {"top1_error": float("inf")}}, None),
        ({"center": {"top1_error": 10**400}}, None),
        ({"center": [8.5]}, None),
        ({"center": 8.5}, None),
        (None, None),
        ("center", None),
    ],
)
def test_only_numbers_are_numbers(tmp_path: Path, results: Any, number: float | None) -> None:
    assert find(write(tmp_path / "a", RECORD | {"results": results})).number("center.top1_error") == number


def test_numbers_of_the_curve_are_the_last_of_their_split(tmp_path: Path) -> None:
    run = write(tmp_path / "a", RECORD)
    assert find(run).number("curve.train.top1_error") is None
    lines = [
        {"step": 90, "split": "train", "top1_error": 0.5},
        {"step": 100, "split": "train", "top1_error": 0.05},
        {"step": 100, "split": "test", "top1_error": 8.5},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 101, "spl')
    assert find(run).number("curve.train.top1_error") == 0.05
    assert find(run).number("curve.test.top1_error") == 8.5
    assert find(run).number("curve.train.loss") is None


@pytest.mark.parametrize("threads", [None, True, 0, -1, 10**9, "2", [2]])
def test_threads_are_taken_from_no_hostile_record(tmp_path: Path, threads: Any) -> None:
    run = find(write(tmp_path / "a", RECORD | {"status": "interrupted", "threads": threads}))
    assert run.threads is None
    assert job(PlannedRun(run, ASKED, 1.0), None, threads=5).threads == 5


def test_a_run_that_was_made_otherwise_is_broken(tmp_path: Path) -> None:
    other = RECORD | {"config": RECORD["config"] | {"train": {"steps": 50}}}  # type: ignore[operator]
    found = find(write(tmp_path / "a", other))
    assert found.state == "broken"
    assert f"{tmp_path / 'a'}: its run had train.steps = 50, now 100 is asked for" in found.reason
    assert found.number("center.top1_error") is None
    found = find(write(tmp_path / "a", RECORD), seed=4)
    assert (found.state, "seed = 3, now 4" in found.reason) == ("broken", True)
    # What is not in the record of an older run had its default; the data may have moved.
    older = RECORD | {"config": {"train": {"steps": 100}, "model": {"name": "a"}, "seed": 3, "data": {"root": "/old"}}}
    assert find(write(tmp_path / "a", older)).state == "finished"


@pytest.mark.parametrize("key", ["precision", "train.compile", "train.log_every", "data.resident", "model.recompute"])
def test_a_finished_run_may_have_been_computed_otherwise(tmp_path: Path, key: str) -> None:
    other = RECORD | {"config": RECORD["config"] | {key: "otherwise"}}  # type: ignore[operator]
    assert find(write(tmp_path / "a", other)).state == "finished"


def test_a_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    def state(key: str) -> str:
        config = RECORD["config"] | {key: "otherwise"}  # type: ignore[operator]
        return find(write(tmp_path / "a", RECORD | {"status": "interrupted", "config": config})).state

    assert [state(key) for key in ("precision", "train.compile")] == ["broken", "broken"]
    assert [state(key) for key in ("train.log_every", "train.workers")] == ["interrupted", "interrupted"]


def test_the_beginning_of_a_run_takes_numbers_only(tmp_path: Path) -> None:
    figure = Beginning(["a"], steps=20, numbers={"gradient_norm": "norm"})
    run = find(write(tmp_path / "a", RECORD))
    with pytest.raises(UserError, match="can't be read"):
        first_numbers(run, figure, share=0.5)
    lines = [{"step": step, "split": "train", "gradient_norm": step / 2} for step in (5, 10, 15)]
    odd = [{"step": 6, "split": "train", "gradient_norm": value} for value in (10**400, float("nan"), True, "1", None)]
    odd += [{"step": "7", "split": "train", "gradient_norm": 1}, {"step": 8, "split": "test", "gradient_norm": 1}, []]
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*odd, *lines]) + '{"st')
    assert first_numbers(run, figure, share=0.5) == [(5, {"gradient_norm": 2.5}), (10, {"gradient_norm": 5.0})]
    (run.folder / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="has logged no gradient_norm"):
        first_numbers(run, figure, share=0.5)


@given(st.floats(1e-4, 1.0), st.integers(1, 64000), st.integers(0, 500), st.booleans())
def test_a_schedule_is_shortened_alike(scale: float, steps: int, warmup: int, by_error: bool) -> None:
    config = {"train.steps": steps, "train.evaluate_every": 0, "train.log_every": 100, "schedule.warmup_steps": warmup}
    config |= {"schedule.warmup_window": 100, "schedule.warmup": "error" if by_error else "linear"}
    config |= {"schedule.milestones": [steps // 2 + 1, steps + 1], "train.batch_size": 128}
    shorter = scaled(config, scale)
    assert shorter["train.steps"] == max(1, round(steps * scale))
    assert shorter["train.evaluate_every"] == 0
    assert (shorter["schedule.warmup_steps"] == 0) == (warmup == 0)
    window = max(1, round(100 * scale))
    assert shorter.get("schedule.warmup_window") == (window if by_error else None)  # else nothing looks at it
    assert shorter["schedule.milestones"] == sorted({max(1, round(m * scale)) for m in config["schedule.milestones"]})
    assert "train.batch_size" not in shorter
    assert "schedule.plateau_window" not in shorter  # where there is none


def test_smoke_is_some_steps() -> None:
    config = {"train.steps": 64000, "train.checkpoint_every": 4000, "schedule.milestones": [32000, 48000]}
    assert scaled(config, "smoke") == {
        "train.steps": 20,
        "train.evaluate_every": 10,
        "train.checkpoint_every": 5,
        "schedule.milestones": [10, 15],
    }
    assert scaled({"train.steps": 8}, "smoke")["train.steps"] == 8
    for wrong in (0.0, -1.0, 1.5, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="scale"):
            scaled(config, wrong)


def test_what_is_asked_is_what_the_training_command_would_record(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("model: {name: cifar_resnet20}\ntrain: {steps: 1000, checkpoint_every: 100}\n")
    experiment = Experiment("A", "a.yaml", "d", 1.0)
    data = DataSet("D", options={"data.name": "cifar10", "data.mean": [1, 2, 3], "data.test_resize": None})
    found = request(experiment, tmp_path, data, scale=0.1, options={"precision": "bf16", "train.log_every": 7})
    assert (found.steps, found.share) == (100, 0.1)
    wanted = {"model.name": "cifar_resnet20", "data.name": "cifar10", "data.mean": [1, 2, 3], "data.test_resize": None}
    wanted |= {"train.checkpoint_every": 10, "train.log_every": 7, "precision": "bf16", "optimizer.lr": 0.1}
    assert {key: found.config[key] for key in wanted} == wanted
    with pytest.raises(ConfigError, match=r"set\.seed"):
        request(experiment, tmp_path, data, scale=1.0, options={"seed": 3})
    with pytest.raises(ConfigError, match="prcision"):
        request(experiment, tmp_path, data, scale=1.0, options={"prcision": "bf16"})


def test_the_plan(tmp_path: Path) -> None:
    def planned(state: Any, step: int = 0, reason: str = "") -> PlannedRun:
        return PlannedRun(Run("a", 0, tmp_path / f"{state.replace(' ', '_')}", state, step, reason), ASKED, 2.0)

    plan = [planned("to do"), planned("interrupted", 75), planned("finished", 100), planned("broken", 0, "no JSON")]
    machine = Machine("G", price=3.0, cpu_factor=100.0)
    lines = format_plan(plan, machine, gpus=2, at_once=4).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:6]]
    assert cells[0] == ["to_do", "to do", "100", "2.0 hours", "6.00"]
    assert cells[1] == ["interrupted", "interrupted at step 75 of 100", "25", "30.0 minutes", "1.50"]
    assert cells[2] == ["finished", "finished", "-", "-", "-"]
    assert cells[3] == ["broken", "broken", "-", "-", "-"]
    assert lines[6:8] == ["", "no JSON"]
    text = "\n".join(lines)
    assert "4 run(s): 1 finished, 2 to train or go on with" in text
    assert "2.5 hours of one G (an estimate), 7.50 $ at 3.00 $ an hour" in text
    assert "on the 2 GPU(s) here, 4 at a time: 2.0 hours" in text  # as long as the longest run
    assert "on the 2 GPU(s) here, 1 at a time: 2.5 hours" in format_plan(plan, machine, gpus=2, at_once=1)
    assert "on the 2 GPU(s) here, 3 at a time: 4.5 hours" in format_plan(
        [*plan, *plan, *plan, plan[1], plan[1], plan[1]], machine, gpus=2, at_once=3
    )
    assert "no GPU here: its cores need something like 10.4 days" in format_plan(plan, machine, gpus=0, at_once=4)
    assert "of one G" not in format_plan(plan[2:3], machine, gpus=0, at_once=1)


def test_words_and_folders() -> None:
    assert [duration(h) for h in (72.0, 2.0, 0.25, 0.01)] == ["3.0 days", "2.0 hours", "15.0 minutes", "36 seconds"]
    assert run_folder(Path("r"), "d", 1.0) == Path("r/d")
    assert run_folder(Path("r"), "d", 0.0625) == Path("r/d-x0.0625")
    assert run_folder(Path("r"), "d", "smoke") == Path("r/d-xsmoke")
