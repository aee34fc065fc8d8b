"""Other numbers of processes on resume, and what a process says that lost the others."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from backbones.engine.distributed import LostProcessesError, World, entered_by_main, explain_loss, join_world
from backbones.engine.loop import TrainOptions, portion_size
from backbones.engine.run import open_run
from backbones.errors import ConfigError, RunFolderError

WORLD = World(1, 4, torch.device("cpu"))


@dataclass
class Config:
    seed: int = 0
    elastic: bool = False
    timeout_minutes: float = 30.0


def begin(path: Path, step: int, processes: int, config: Config | None = None, threads: int = 1, **flags: Any) -> None:
    """Opens a run folder and begins training in it, as far as its record goes."""
    chosen = {"resume": True, "overwrite": False, "allow_mismatch": False} | flags
    with open_run(str(path), config or Config(), **chosen, processes=processes, threads=threads) as run:
        run.begin(step)


def test_an_elastic_run_notes_each_restart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(tmp_path / "run", 0, 3)
    begin(tmp_path / "run", 5, 2, elastic=True)
    begin(tmp_path / "run", 8, 2, Config(elastic=True, timeout_minutes=2), elastic=False)  # free to change
    begin(tmp_path / "run", 9, 2, elastic=True, threads=4)
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["restarts"] == [
        {"step": 5, "processes": 2, "threads": 1},
        {"step": 8, "processes": 2, "threads": 1},
        {"step": 9, "processes": 2, "threads": 4},
    ]
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in said] == [
        "goes on with 2 processes, it had 3",
        "goes on with 4 threads, it had 1",
    ]


def test_other_processes_are_refused_without_elastic(tmp_path: Path) -> None:
    begin(tmp_path / "run", 0, 3)
    with pytest.raises(RunFolderError, match=r"had processes = 3, now it is 2; .*--elastic"):
        begin(tmp_path / "run", 5, 2)


def test_an_elastic_run_is_the_same_run(tmp_path: Path) -> None:
    begin(tmp_path / "run", 0, 3)
    with pytest.raises(RunFolderError, match="had seed = 0, now it is 1"):
        begin(tmp_path / "run", 5, 2, Config(seed=1), elastic=True)


def test_a_batch_that_three_hosts_can_not_share_names_those_that_they_can() -> None:
    with pytest.raises(ConfigError, match=r"train.batch_size 256 .* over 3 process.*: give 255 or 258; with --elastic"):
        portion_size(TrainOptions(batch_size=256), 3)
    assert portion_size(TrainOptions(batch_size=255), 3) == 85
    with pytest.raises(ConfigError, match="give 3; with"):
        portion_size(TrainOptions(batch_size=2), 3)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            RuntimeError(
                "[/w/gloo/transport/tcp/pair.cc:561] Connection closed by peer [10.0.0.2]:73. This is typically caused"
            ),
            "(Connection closed by peer [10.0.0.2]:73)",
        ),
        (RuntimeError("[/w/gloo/unbound_buffer.cc:78] Timed out waiting 40ms for recv"), "(Timed out waiting 40ms for"),
        (dist.DistBackendError("NCCL error: remote process exited"), "(NCCL error: remote process exited)"),
        (dist.DistStoreError("wait timeout after 60000ms"), "(wait timeout after 60000ms)"),
    ],
)
def test_what_means_that_others_are_lost(error: Exception, reason: str) -> None:
    with pytest.raises(LostProcessesError) as caught, explain_loss(WORLD):
        raise error
    assert str(caught.value).startswith("rank 1 of 4 processes lost the others (")
    assert reason in str(caught.value)
    assert "--resume" in str(caught.value)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shape mismatch"), explain_loss(WORLD):
        raise RuntimeError("shape mismatch")


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf"), 1e9])
def test_a_timeout_that_makes_no_sense(minutes: float) -> None:
    with pytest.raises(ConfigError, match="timeout_minutes"), join_world("cpu", minutes):
        pass


def test_only_the_main_process_enters(tmp_path: Path) -> None:
    def opened() -> Any:
        return open_run(str(tmp_path / "run"), Config(), resume=False, overwrite=False, allow_mismatch=False)

    with entered_by_main(WORLD, opened()) as run:
        assert run is None
    with entered_by_main(World(0, 1, torch.device("cpu")), opened()) as run:
        assert run is not None
        assert run.record["status"] == "running"
    assert run.record["status"] == "finished"


def test_a_process_stops_when_torchrun_dies(tmp_path: Path) -> None:
    child = tmp_path / "child.py"
    child.write_text(
        "import signal, sys, time\n"
        "from backbones.engine.distributed import _stop_with_parent\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (open({str(tmp_path / 'told')!r}, 'w').close(), sys.exit()))\n"
        "_stop_with_parent()\n"
        "print('ready', flush=True)\n"
        "time.sleep(30)\n"
    )
    code = f"import subprocess, sys; subprocess.run([sys.executable, {str(child)!r}], start_new_session=True)"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    end = time.monotonic() + 10
    while not (tmp_path / "told").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
