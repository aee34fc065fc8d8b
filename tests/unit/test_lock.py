"""One process at a time in a run folder."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backbones.engine.lock import LOCK, only_writer
from backbones.engine.run import open_run
from backbones.engine.schedule import ScheduleOptions
from backbones.errors import RunFolderError

HOLD = (
    "import sys, time; from pathlib import Path; from backbones.engine.lock import only_writer\n"
    "with only_writer(Path(sys.argv[1])): print('held', flush=True); time.sleep(float(sys.argv[2]))"
)


def hold(folder: Path, seconds: float = 60) -> subprocess.Popen:
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    other = hold(tmp_path)
    first = f"another process is at work in it .process {other.pid} on "
    with pytest.raises(RunFolderError, match=first) as error, only_writer(tmp_path):
        pass
    assert "wait for it, or name another --output" in str(error.value)
    other.kill()
    other.wait()
    with only_writer(tmp_path):  # a lock ends with its process, even by SIGKILL
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on ")


def test_a_run_in_use_is_neither_replaced_nor_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backbones.engine.run._PATIENCE", 0.3)
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "weights.safetensors").write_text("mine")
    other = hold(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for flags in ({"resume": True, "overwrite": False}, {"resume": False, "overwrite": True}):
        opened = open_run(str(tmp_path), ScheduleOptions(), allow_mismatch=True, **flags)
        with pytest.raises(RunFolderError, match="another process"), opened:
            pass
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    other.kill()
    other.wait()


def test_a_process_that_is_about_to_end_is_waited_for(tmp_path: Path) -> None:
    hold(tmp_path, seconds=0.3)
    started = time.monotonic()
    with only_writer(tmp_path, patience=30):
        assert time.monotonic() - started < 20


def test_forked_processes_do_not_hold_it(tmp_path: Path) -> None:
    """Loading processes outlive a killed training process by seconds."""
    with only_writer(tmp_path):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
    try:
        hold(tmp_path, seconds=0).wait()
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_a_hostile_owner_is_not_printed(tmp_path: Path) -> None:
    other = hold(tmp_path)
    (tmp_path / LOCK).write_bytes(b"\x1b]0;owned\x07\xff\n")
    with pytest.raises(RunFolderError) as error, only_writer(tmp_path):
        pass
    assert str(error.value).isprintable()
    other.kill()
    other.wait()


def test_a_folder_without_room_for_a_lock_is_named() -> None:
    with pytest.raises(RunFolderError, match="/proc/self: can't be written"), only_writer(Path("/proc/self")):
        pass
