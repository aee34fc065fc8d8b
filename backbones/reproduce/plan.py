"""What is to be done: every run with its state, the steps left, and what they take."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backbones.jobs import Job
from backbones.markdown import format_table
from backbones.reproduce.paper import Machine
from backbones.reproduce.requests import Request, Scale
from backbones.reproduce.runs import Run


@dataclass(frozen=True)
class PlannedRun:
    """A run, what is asked of it, and what the rest of it takes.

    Args:
        run: as it is now.
        request: what it should be.
        gpu_hours: estimated for its whole schedule.
    """

    run: Run
    request: Request
    gpu_hours: float

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.run.folder.name

    @property
    def to_train(self) -> bool:
        """Whether this command would train it."""
        return self.run.state in ("to do", "interrupted", "failed")

    @property
    def steps_left(self) -> int:
        """Those that are missing."""
        return max(0, self.request.steps - self.run.step) if self.to_train else 0

    @property
    def hours_left(self) -> float:
        """GPU hours for the steps that are missing."""
        return self.gpu_hours * self.request.share * self.steps_left / self.request.steps


def job(planned: PlannedRun, root: str | None, threads: int) -> Job:
    """The process that trains a run, or goes on with it: with the threads that it was begun with."""
    run, request = planned.run, planned.request
    arguments = ["-m", request.module, *request.arguments, "--seed", str(run.seed)]
    if root is not None:
        arguments += ["--data.root", root]
    return Job(
        planned.name,
        [*arguments, "--output", str(run.folder), "--resume"],
        steps=request.steps,
        done_steps=run.step,
        weight=planned.hours_left / planned.steps_left if planned.steps_left else 0.0,
        threads=run.threads or threads,
    )


def format_plan(plan: Sequence[PlannedRun], machine: Machine, gpus: int, at_once: int) -> str:
    """A line for each run, and below them what all takes together.

    Args:
        plan: the runs.
        machine: that time and cost are estimated for.
        gpus: how many there are here.
        at_once: how many runs are trained at a time.
    """
    rows = [["run", "state", "steps left", "GPU time", "cost $"]]
    for planned in plan:
        hours = planned.hours_left
        numbers = [f"{planned.steps_left:,}", duration(hours), f"{hours * machine.price:.2f}"]
        rows.append([planned.name, _state(planned), *(numbers if planned.to_train else ["-", "-", "-"])])
    lines = [format_table(rows, texts=2), ""]
    lines += [planned.run.reason for planned in plan if planned.run.state == "broken"]
    left = [planned for planned in plan if planned.to_train]
    finished = sum(planned.run.state == "finished" for planned in plan)
    lines.append(f"{len(plan)} run(s): {finished} finished, {len(left)} to train or go on with")
    if left:
        hours = sum(planned.hours_left for planned in left)
        lines.append(
            f"together {duration(hours)} of one {machine.name} (an estimate), "
            f"{hours * machine.price:.2f} $ at {machine.price:.2f} $ an hour"
        )
        if gpus:
            longest = max(planned.hours_left for planned in left)
            here = max(longest, hours / min(gpus, at_once))
            lines.append(f"on the {gpus} GPU(s) here, {at_once} at a time: {duration(here)}, if they are as fast")
        else:
            lines.append(f"no GPU here: its cores need something like {duration(hours * machine.cpu_factor)}")
    return "\n".join(lines)


def duration(hours: float) -> str:
    """A time in the unit that suits it."""
    for size, unit in ((48.0, "days"), (1.0, "hours"), (1 / 60, "minutes")):
        if hours >= size:
            return f"{hours / (24 if unit == 'days' else size):.1f} {unit}"
    return f"{hours * 3600:.0f} seconds"


def run_folder(runs: Path, data: str, scale: Scale) -> Path:
    """Where the runs on a data set lie: `<runs>/<data>[-x<scale>]`."""
    suffix = "" if scale == 1 else f"-x{scale}" if scale == "smoke" else f"-x{scale:g}"
    return runs / f"{data}{suffix}"


def _state(planned: PlannedRun) -> str:
    run = planned.run
    if run.state in ("interrupted", "failed", "running"):
        return f"{run.state} at step {run.step:,} of {planned.request.steps:,}"
    return run.state
