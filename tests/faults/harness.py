"""A run is started, hurt, and gone on with; in the end it must be, bit by bit, the undisturbed one.

A kind of fault is a function `(trial: Trial, random: Random) -> None` with a docstring. It hurts one run in one or
several ways, one after the other, notes each with `trial.hurt(moment, ended)`, and says what must hold with
`trial.expect`. When it returns, the run is gone on with until it is finished, unless it is, and compared with the
undisturbed one (`Trial.finish`). Whatever does not hold, there or before, makes every fault of the trial one that was
not survived. So a kind is as short as

    def terminated(trial, random):
        trial.start()
        trial.wait_for_steps(random.randint(1, 9))
        trial.running.send(SIGTERM)
        ended = trial.running.wait()
        trial.hurt("SIGTERM in a step", ended)
        trial.expect(ended.code == 143, ended)

`kinds.py` lists all of them with the workloads that they hurt.
"""

import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.faults.comparison import (
    Line,
    checkpoints,
    differences,
    final_differences,
    folders_of,
    last_step,
    read_lines,
    safe_lines,
    safe_step,
)
from tests.faults.lab import Broken, Fault, Lab, Unavailable
from tests.faults.running import Ended, Running
from tests.faults.workloads import Workload

Kind = Callable[["Trial", Random], None]


@dataclass
class Trial:
    """One run that is hurt. `running` is its newest process; what `cleanup` holds is left in the end.

    Args:
        lab: where.
        kind: the name of the kind of fault.
        workload: what is trained.
        seed: of the random choices.
        folder: for the run and the outputs of its processes.
    """

    lab: Lab
    kind: str
    workload: Workload
    seed: int
    folder: Path
    faults: list[Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.undisturbed = self.lab.undisturbed(self.workload)
        self.output = self.folder / "run"
        self.data: Path | None = None
        self.cleanup = ExitStack()
        self._started: list[Running] = []
        self._safe: dict[Path, list[Line]] = {}
        self._clock = time.monotonic()

    @property
    def running(self) -> Running:
        """The process that was started last."""
        return self._started[-1]

    def own_pictures(self) -> Path:
        """A copy of the class folders, which may be hurt; all processes that are started from now on read it."""
        self.data = self.folder / "pictures"
        shutil.copytree(self.lab.pictures, self.data)
        return self.data

    def arguments(self, *more: str) -> list[str]:
        """The arguments of a process that begins the run, or goes on with what is there of it."""
        weights = self.lab.weights(self.workload)
        return [*self.workload.arguments(self.output, self.data, weights), "--resume", *more]

    def start(
        self,
        *more: str,
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        processes: int | None = None,
        beside: bool = False,
    ) -> Running:
        """Starts a process that begins the run or goes on with it.

        Args:
            more: further options.
            prefix: a command that runs the command (`ip netns exec one`).
            environment: further variables.
            processes: another number of them than the workload's.
            beside: it is one beside `running`, which stays that.
        """
        workload = self.workload.in_processes(processes) if processes else self.workload
        log = self.folder / f"process_{len(self._started)}"
        warm = bool(self._started) or not self.lab.cold
        running = self.lab.start(
            workload, self.arguments(*more), log, warm=warm, prefix=prefix, environment=environment
        )
        self._started.insert(0 if beside else len(self._started), running)
        self._clock = time.monotonic()
        return running

    def steps_logged(self) -> int:
        """The steps that the curve tells of, over all stages: those up to the last line of each."""
        return sum(map(last_step, _stages(self.output)))

    def steps_saved(self, without: Collection[Path] = ()) -> int:
        """Steps that a resumed run does not do again, over all stages."""
        return sum(safe_step(folder, without) for folder in _stages(self.output))

    def wait_for_steps(self, count: int, seconds: float = 120) -> bool:
        """Waits until the process has begun and `count` steps in all are logged; False if it ends before."""
        wanted = max(count, self.steps_logged() + 1)
        return self.wait_for(lambda: self.steps_logged() >= wanted, seconds)

    def wait_for(self, condition: Callable[[], bool], seconds: float = 120) -> bool:
        """Waits until `condition` holds; False if the process ends before.

        Raises:
            Broken: it takes longer.
        """
        end = time.monotonic() + seconds
        while not condition():
            if self.running.poll() is not None:
                return condition()
            self.expect(time.monotonic() < end, f"nothing happened for {seconds:g} s")
            time.sleep(0.002)
        return True

    def hurt(self, moment: str, ended: Ended | None, without: Collection[Path] = ()) -> None:
        """Notes a fault, and checks what the run has left: bits, and that nothing written before is lost.

        Args:
            moment: when, and what exactly was done.
            ended: the process that was hurt; None if it goes on.
            without: checkpoints that are damaged.
        """
        code = None if ended is None else ended.code
        repeated = None if ended is None else max(0, self.steps_logged() - self.steps_saved(without))
        fault = Fault(self.kind, self.workload.name, self.seed, moment, code, steps_repeated=repeated)
        self.faults.append(fault)
        self.check(without)
        fault.seconds = round(time.monotonic() - self._clock, 2)

    def check(self, without: Collection[Path] = ()) -> None:
        """Compares all that is there with the undisturbed run and with what was there before.

        Raises:
            Broken: says where they differ.
        """
        for difference in differences(self.output, self.undisturbed, without):
            raise Broken(difference)
        for folder, lines in self._safe.items():
            there = read_lines(folder)
            for line in lines:
                self.expect(line in there, f"{folder}/metrics.jsonl: lost {line}")
        folders = folders_of(self.output)[1:] or [self.output]
        self._safe = {folder: safe_lines(folder, without) for folder in folders}

    def must_go_on(self) -> None:
        """The process must finish the run by itself.

        Raises:
            Broken: it does not.
        """
        ended = self.running.wait()
        self.expect(ended.code == 0, f"did not go on by itself: {ended}")

    def finish(self) -> None:
        """Goes on with the run where it is not finished, and compares it with the undisturbed one.

        Raises:
            Broken: it is another, or does not finish.
        """
        if self.running.wait().code:
            ended = self.start().wait()
            self.expect(ended.code == 0, f"the run does not go on: {ended}")
        for difference in final_differences(self.output, self.undisturbed):
            raise Broken(difference)
        self.check()

    def expect(self, holds: bool, otherwise: Any) -> None:
        """Raises Broken, with what is found instead, unless something holds."""
        if not holds:
            raise Broken(str(otherwise))

    def expect_refusal(self, ended: Ended, *words: str) -> None:
        """The process must have left with exit code 2 and one line that holds these words."""
        last = (ended.errors.strip().splitlines() or [""])[-1]
        clear = last.startswith("error: ") and "Traceback" not in ended.errors
        self.expect(ended.code == 2 and clear and all(word in last for word in words), f"wanted {words}: {ended}")

    @contextmanager
    def unchanged(self, but: str = "") -> Iterator[None]:
        """The run's files, but for one, must be in the end what they were in the beginning."""
        before = _contents(self.output)
        yield
        after = _contents(self.output)
        changed = sorted(
            name for name in before.keys() | after.keys() if before.get(name) != after.get(name) and name != but
        )
        self.expect(not changed, f"changed what it had no business with: {changed}")

    def newest_checkpoint(self) -> tuple[int, Path]:
        """The step and file of the newest checkpoint of the stage that is being trained."""
        found = [max(checkpoints(folder).items()) for folder in folders_of(self.output) if checkpoints(folder)]
        self.expect(bool(found), "there is no checkpoint")
        return found[-1]

    def end(self) -> None:
        """Kills whatever is left of its processes, and cleans up."""
        for running in self._started:
            running.end()
        self.cleanup.close()


def run_trial(lab: Lab, name: str, kind: Kind, workload: Workload, seed: int) -> list[Fault]:
    """Hurts one run; returns what was injected, each with whether it was survived.

    The trial's folder is removed unless something did not hold.

    Raises:
        Unavailable: this kind can't be made here.
    """
    folder = lab.folder / "trials" / f"{name}_{workload.name}_{seed}".replace(" ", "_").replace("/", "_")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    trial = Trial(lab, name, workload, seed, folder)
    reason = None
    began = time.monotonic()
    try:
        kind(trial, Random(f"{name} {workload.name} {seed}"))
        trial.finish()
    except Unavailable:
        raise
    except Exception as error:  # what nobody foresaw is not survived either
        reason = f"{type(error).__name__}: {error} (all of it in {folder})"
        if not trial.faults:
            trial.faults.append(Fault(name, workload.name, seed, "before anything was hurt", None))
    finally:
        trial.end()
    shared = (time.monotonic() - began - sum(fault.seconds for fault in trial.faults)) / max(1, len(trial.faults))
    for fault in trial.faults:
        fault.survived, fault.reason = reason is None, reason
        fault.seconds = round(fault.seconds + shared, 2)
    if reason is None:
        shutil.rmtree(folder)
    return trial.faults


def _stages(run: Path) -> list[Path]:
    """The folders of a run's stages; its own where it has none."""
    return sorted(run.glob("stages/*")) or [run]


def _contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder but the lock and what TensorBoard reads."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if "tfevents" not in path.name}
