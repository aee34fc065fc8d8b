"""Processes side by side: one that fails, one that is interrupted, GPUs and threads. `test_demo.py` has their order."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from backbones.errors import UserError
from backbones.jobs import Job, in_use, last_metrics, process_at_work, run_jobs, usable_gpus

WAIT = "import time; print('started', flush=True); time.sleep(600)"


def job(name: str, code: str, **options: int | str | None) -> Job:
    return Job(name, ["-S", "-E", "-c", code], **options)  # type: ignore[arg-type]


def test_a_failing_job_costs_itself_and_what_needs_it(tmp_path: Path) -> None:
    jobs = [
        job("bad", "import sys; print('error: no more cheese'); sys.exit(3)"),
        job("later", "raise SystemExit", after="bad"),
        job("last", "raise SystemExit", after="later"),
        job("good", f"open({str(tmp_path / 'good')!r}, 'w')"),
        job("killed", "import os; os.kill(os.getpid(), 9)"),
    ]
    failed = run_jobs(jobs, tmp_path, at_once=2, keep_going=True)
    assert {item.name: item.failure for item in failed} == {
        "bad": f"bad failed: error: no more cheese (all of it in {tmp_path}/bad.log)",
        "later": "later was not started: bad failed",
        "last": "last was not started: later failed",
        "killed": f"killed failed: ended by SIGKILL (all of it in {tmp_path}/killed.log)",
    }
    assert (tmp_path / "good").exists()
    assert [item.name for item in jobs if item.succeeded] == ["good"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_interrupts_its_processes_once_and_waits(tmp_path: Path, number: signal.Signals) -> None:
    """They may take their time to write down how far they are; a file says that they have."""
    end = tmp_path / "end"
    code = f"""
import time
print('started', flush=True)
try:
    time.sleep(600)
except KeyboardInterrupt:
    time.sleep(0.3)
    open({str(end)!r}, 'a').write('interrupted ')
"""
    running = job("a", code)
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]

    def stop() -> None:
        while not (tmp_path / "a.log").exists() or "started" not in (tmp_path / "a.log").read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run_jobs([running, job("b", "raise SystemExit", after="a")], tmp_path, at_once=1)
    assert end.read_text() == "interrupted "
    assert not (tmp_path / "b.log").exists()
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_asked_twice_it_kills_what_does_not_stop(tmp_path: Path) -> None:
    started = time.monotonic()
    stubborn = job("a", f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); {WAIT}")

    def stop() -> None:
        while not (tmp_path / "a.log").exists() or "started" not in (tmp_path / "a.log").read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.8)  # by then the process has been asked, and has not stopped
        still_there.append(stubborn.process is not None and stubborn.process.poll() is None)
        os.kill(os.getpid(), signal.SIGINT)

    still_there: list[bool] = []
    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run_jobs([stubborn], tmp_path)
    assert still_there == [True]
    assert stubborn.process is not None
    assert stubborn.process.returncode == -signal.SIGKILL
    assert time.monotonic() - started < 30  # not after the minute that it would have had


def test_processes_can_be_interrupted_where_a_script_ignores_it(tmp_path: Path) -> None:
    """As a shell script's `command &` does."""
    code = "import signal, sys; sys.exit(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run_jobs([job("a", code)], tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)


def test_gpus_are_dealt_out_and_threads_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert usable_gpus() == []  # none of them is there
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert usable_gpus() == ["3", "GPU-5"]
    code = "import os, time; time.sleep(0.5); print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['OMP_NUM_THREADS'])"
    run_jobs(
        [job(name, code, threads=threads) for name, threads in (("a", 7), ("b", 1), ("c", 2))], tmp_path, at_once=3
    )
    printed = [(tmp_path / f"{name}.log").read_text().splitlines()[1].split() for name in "abc"]
    assert [threads for _, threads in printed] == ["7", "1", "2"]
    assert [gpu for gpu, _ in printed] == ["3", "GPU-5", "3"]
    # One GPU, or none to see: as the environment says.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert usable_gpus() == []
    run_jobs([job("d", code.replace("0.5", "0"), threads=1)], tmp_path)
    assert (tmp_path / "d.log").read_text().splitlines()[1] == " 1"


def test_a_run_has_one_process_at_a_time(tmp_path: Path) -> None:
    """Even where the process that started it was killed and could not stop it."""
    script = f"""
import sys; sys.path[:0] = {sys.path!r}
from pathlib import Path
from backbones.jobs import Job, run_jobs
run_jobs([Job('a', ['-S', '-E', '-c', {WAIT!r}])], Path({str(tmp_path)!r}))
"""
    starter = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    log = tmp_path / "a.log"
    while not log.exists() or "started" not in log.read_text():
        time.sleep(0.02)
    starter.kill()
    starter.wait()
    orphan = process_at_work(tmp_path / "a")
    assert orphan is not None
    assert orphan != starter.pid
    try:
        assert in_use(tmp_path / "a")
        message = f"a: another process is at work on it (process {orphan}): wait for it, or end it ({log})"
        with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
            run_jobs([job("a", "raise SystemExit")], tmp_path)
        # It costs itself and what needs it; the others go on.
        jobs = [job("a", WAIT), job("b", "raise SystemExit"), job("c", "raise SystemExit", after="a")]
        assert run_jobs(jobs, tmp_path, at_once=1, keep_going=True) == [jobs[0], jobs[2]]
        assert (jobs[0].failure, jobs[1].succeeded) == (message, True)
        assert "started" in log.read_text()  # its log is left alone
    finally:
        os.kill(orphan, signal.SIGKILL)
    while in_use(tmp_path / "a"):
        time.sleep(0.01)
    run_jobs([job("a", "raise SystemExit")], tmp_path)


def test_the_bar_tells_work_and_steps(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A step of `b` costs three of `a`'s; `b` has been half done before."""
    jobs = [job("a", "raise SystemExit", steps=100), job("b", "raise SystemExit", steps=100, done_steps=50, weight=3.0)]
    run_jobs(jobs, tmp_path, at_once=1)
    bar = capsys.readouterr().err.replace("\r", "\n")
    assert " 38%|" in bar  # 150 of 400
    assert "100%|" in bar
    assert "200/200 steps, 2/2 done" in bar


def test_the_last_metrics_are_the_last_whole_ones(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert last_metrics(tmp_path) == {}
    lines = [json.dumps({"step": step, "split": "train", "loss": 0.5}) for step in range(1, 5001)]
    path.write_text("\n".join([*lines, '{"step": 5001, "spl']))
    assert last_metrics(tmp_path)["step"] == 5000
    path.write_bytes(b'{"step": 3}\n{"step": "x"}\n{"step": -1}\n[1]\n\xff\xfe\n' + b"[" * 30000 + b"\n")
    assert last_metrics(tmp_path) == {"step": 3}
