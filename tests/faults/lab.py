"""What a fault is, and the lab in which runs are hurt."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.faults.comparison import read_record
from tests.faults.running import Running, start_cold, start_warm
from tests.faults.workloads import Workload, workloads, write_pictures


class Broken(Exception):
    """Something that the project promises does not hold."""


class Unavailable(Exception):
    """A kind of fault can't be made on this machine; the message says why, and what would help."""


@dataclass
class Fault:
    """One injected fault.

    Args:
        kind: of the fault.
        workload: what was trained.
        seed: of the random choices of its trial.
        moment: when, and what exactly was done.
        exit_code: of the process that was hurt; negative if a signal killed it; None if it went on.
        survived: whether all that is promised held, and the run ended in the undisturbed one's bits.
        seconds: from the start of its process to the end of all checks on it.
        steps_repeated: optimizer steps that had been done and had to be done again; None where that is not known, as
            the run went on by itself and its record does not tell.
        reason: why it was not survived.
    """

    kind: str
    workload: str
    seed: int
    moment: str
    exit_code: int | None
    survived: bool = False
    seconds: float = 0.0
    steps_repeated: int | None = None
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The row without what it does not have; `steps_repeated` is null where it is not known."""
        return {n: value for n, value in asdict(self).items() if value is not None or n == "steps_repeated"}


@dataclass
class Lab:
    """Where runs are hurt: a folder for them, for the undisturbed runs and for their data.

    Args:
        folder: a new or an earlier lab's; undisturbed runs are made once.
        cold: start undisturbed runs, and the first process of each trial, as a user does, not forked from a warm one.
    """

    folder: Path
    cold: bool = True

    def __post_init__(self) -> None:
        self.pictures = self.folder / "pictures"
        if not self.pictures.exists():
            write_pictures(self.pictures)
        self.workloads = workloads(self.pictures)

    def undisturbed(self, workload: Workload) -> Path:
        """The folder of the undisturbed run, which is made where it is missing.

        It keeps all checkpoints, to compare whatever a hurt run has left with: of each step, unless lines of the curve
        are averages over several, which more checkpoints would cut.
        """
        output = self.folder / "undisturbed" / workload.name.replace(" ", "_")
        if read_record(output).get("status") != "finished":
            output.parent.mkdir(exist_ok=True)
            shutil.rmtree(output, ignore_errors=True)
            arguments = workload.arguments(output, weights=self.weights(workload))
            all_kept = ["--train.keep_checkpoints", "1000"]
            if workload.log_every == 1:
                all_kept += ["--train.checkpoint_every", "1"]
            log = output.with_suffix(".log")
            ended = self.start(workload, [*arguments, *all_kept], log, warm=not self.cold).wait()
            if ended.code:
                raise Broken(f"the undisturbed run of {workload.name} fails: {ended}")
        return output

    def start(
        self,
        workload: Workload,
        arguments: list[str],
        log: Path,
        *,
        warm: bool,
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Running:
        """Starts a process of a workload, forked from a warm one where that will do."""
        if warm and workload.processes == 1 and not (prefix or environment):
            return start_warm(workload.tool, arguments, log)
        return start_cold([*prefix, *workload.command(arguments)], log, environment)

    def weights(self, workload: Workload) -> Path | None:
        """What a workload starts from."""
        return self.undisturbed(self.workloads[workload.backbone]) if workload.backbone else None
