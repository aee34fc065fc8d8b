"""Commands of the project as processes, started as a user does or forked from one that has imported PyTorch already."""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    "PYTHONWARNINGS": "ignore:resource_tracker",  # a killed process leaves semaphores, which are removed in the end
}
_PRELOADED = [
    "torch",
    "tensorboard.summary.writer.record_writer",
    "backbones.train",
    "detection.train",
    "tests.faults.running",
]


@dataclass
class Ended:
    """A process that has ended.

    Args:
        code: its exit code; -9 if it was killed by signal 9, as in `subprocess`.
        output: what it wrote to stdout.
        errors: what it wrote to stderr.
    """

    code: int
    output: str
    errors: str

    def __str__(self) -> str:
        return f"exit code {self.code}; stdout ends {self.output[-300:]!r}; stderr ends {self.errors[-700:]!r}"


@dataclass
class Running:
    """A process that was started, the first of a group (a session) of its own.

    Args:
        pid: also the number of its group.
        poll: its exit code; None while it runs.
        log: its stdout goes to `<log>.out`, its stderr to `<log>.err`.
    """

    pid: int
    poll: Callable[[], int | None]
    log: Path

    def wait(self, seconds: float = 120) -> Ended:
        """Waits for its end.

        Raises:
            TimeoutError: it takes longer; it is killed then.
        """
        end = time.monotonic() + seconds
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                self.end()
                raise TimeoutError(f"process {self.pid} had not ended after {seconds:g} s: {self.ended(-9)}")
            time.sleep(0.005)
        return self.ended(code)

    def ended(self, code: int) -> Ended:
        """Its exit code and what it wrote."""
        texts = (self.log.with_suffix(end).read_text(errors="replace") for end in (".out", ".err"))
        return Ended(code, *texts)

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to this process alone."""
        _send(os.kill, self.pid, number)

    def send_group(self, number: signal.Signals) -> None:
        """Sends a signal to it and all that it started, as the Ctrl-C of a terminal does."""
        _send(os.killpg, self.pid, number)

    def end(self) -> None:
        """Kills the whole group, if anything of it is left."""
        self.send_group(signal.SIGKILL)


def start_cold(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> Running:
    """Starts a program as a user does; its imports take some seconds."""
    with log.with_suffix(".out").open("w") as out, log.with_suffix(".err").open("w") as err:
        process = subprocess.Popen(
            list(command),
            cwd=ROOT,
            env=os.environ | ENVIRONMENT | dict(environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
            preexec_fn=_heed_signals,
        )
    return Running(process.pid, process.poll, log)


def start_warm(tool: str, arguments: Sequence[str], log: Path) -> Running:
    """Starts a tool in a process that is forked from one that has imported PyTorch, and else is as any other."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    for end in (".out", ".err"):
        log.with_suffix(end).write_text("")
    process = context.Process(target=_run_tool, args=(tool, list(arguments), log))
    with patch.dict(os.environ, ENVIRONMENT):  # the server that forks has them from this process
        process.start()
    assert process.pid is not None
    return Running(process.pid, lambda: process.exitcode, log)


def tool_command(tool: str, arguments: Sequence[str], processes: int = 1) -> list[str]:
    """The command line of a tool; of several processes, that of torchrun."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [sys.executable, *(torchrun if processes > 1 else []), str(ROOT / f"tools/{tool}.py"), *arguments]


def members(group: int) -> list[int]:
    """The living processes of a group."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, _, its_group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it has just ended
            continue
        if int(its_group) == group and state not in "ZX":
            found.append(int(entry.name))
    return found


def _run_tool(tool: str, arguments: list[str], log: Path) -> None:
    """Becomes the tool, in a session of its own."""
    os.setsid()
    os.chdir(ROOT)
    _heed_signals()
    multiprocessing.set_start_method(None, force=True)  # of its loading processes: the default, as in any process
    for number, end in ((1, ".out"), (2, ".err")):
        descriptor = os.open(log.with_suffix(end), os.O_WRONLY)
        os.dup2(descriptor, number)
        os.close(descriptor)
    script = str(ROOT / f"tools/{tool}.py")
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


def _heed_signals() -> None:
    """In the background of a shell, or below nohup, some would be ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _send(send: Callable[[int, int], None], target: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it has ended by itself
        send(target, number)
