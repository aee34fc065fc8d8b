"""Many trials, some side by side, until so many faults are injected; and what came of them."""

import multiprocessing
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tests.faults.harness import run_trial
from tests.faults.kinds import KINDS
from tests.faults.lab import Fault, Lab, Unavailable

_PATIENCE = 5  # trials of a kind in which nothing is hurt, until it is given up


@dataclass
class Campaign:
    """What was injected.

    Args:
        faults: each, in the order in which their trials ended.
        skipped: why a kind could not be made here, by its name.
        asked: the kinds that were asked for.
        empty: trials in which nothing was hurt, as the run was faster, by kind.
    """

    faults: list[Fault] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    asked: Sequence[str] = ()
    empty: Counter[str] = field(default_factory=Counter)

    def wants(self, name: str, count: int) -> bool:
        """Whether a kind is to be made once more: none of it is there yet, or there are not `count` of all."""
        if name in self.skipped or self.empty[name] >= _PATIENCE:
            return False
        return len(self.faults) < count or not any(fault.kind == name for fault in self.faults)

    def to_json(self, batch_sizes: dict[str, int]) -> dict[str, Any]:
        """The counts, in all and by kind, and a row for each fault.

        Sums of steps are over the faults of which they are known, as `steps_repeated_known_of` says; `samples_lost` is
        null, also in all, where a run is not compared with the undisturbed one, or is another.

        Args:
            batch_sizes: pictures of a step by workload.
        """
        kinds = {
            name: {
                "injected": len(rows),
                "survived": sum(fault.survived for fault in rows),
                "samples_lost": _samples_lost(name, rows),
            }
            for name in self.asked
            if name not in self.skipped
            for rows in [[fault for fault in self.faults if fault.kind == name]]
        }
        known = {n: fault.steps_repeated for n, fault in enumerate(self.faults) if fault.steps_repeated is not None}
        survived = [fault for fault in self.faults if fault.survived]
        return {
            "injected": len(self.faults),
            "survived": len(survived),
            "samples_lost": 0 if all(numbers["samples_lost"] == 0 for numbers in kinds.values()) else None,
            "steps_repeated": sum(known.values()),
            "steps_repeated_known_of": len(known),
            "samples_computed_again": sum(
                steps * batch_sizes[self.faults[place].workload] for place, steps in known.items()
            ),
            "kinds": kinds,
            "skipped": self.skipped,
            "faults": [fault.to_json() for fault in self.faults],
        }


def _samples_lost(name: str, faults: Sequence[Fault]) -> int | None:
    """Samples left out or seen twice by the final weights; None where nobody can tell.

    Weights, curve and results that are the undisturbed run's to the bit are of the same samples. A run that is compared
    with a replay of itself may have left out what the replay does too.
    """
    told = bool(faults) and not KINDS[name].replayed and all(fault.survived for fault in faults)
    return 0 if told else None


def run_campaign(lab: Lab, names: Sequence[str], count: int, jobs: int, bar: tqdm) -> Campaign:
    """Goes through the kinds in rounds, with other workloads and seeds in each, until `count` faults are injected.

    Each kind is injected at least once, unless it can't be made here, or nothing was hurt in so many trials.

    Args:
        names: of kinds.
        jobs: trials at a time, each in a process of its own.
        bar: is moved by each fault.
    """
    for name in names:  # before the trials, which would each make what they miss
        for workload in KINDS[name].workloads:
            lab.undisturbed(lab.workloads[workload])
    campaign = Campaign(asked=list(names))
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        running: dict[Future[list[Fault]], tuple[str, int]] = {}
        trials = ((name, seed) for seed in range(10**6) for name in names)
        while True:
            while len(running) < jobs and any(campaign.wants(name, count) for name in names):
                name, seed = next(trials)
                if campaign.wants(name, count):
                    try:
                        running[pool.submit(_run_trial, lab, name, seed)] = name, seed
                    except BrokenProcessPool:  # which the trials that were running tell of
                        names = ()
            if not running:
                return campaign
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for trial in done:
                _note(campaign, *running.pop(trial), trial, bar)


def _run_trial(lab: Lab, name: str, seed: int) -> list[Fault]:
    entry = KINDS[name]
    workload = lab.workloads[entry.workloads[seed % len(entry.workloads)]]
    return run_trial(lab, name, entry.inflict, workload, seed)


def _note(campaign: Campaign, name: str, seed: int, trial: Future[list[Fault]], bar: tqdm) -> None:
    try:
        faults = trial.result()
    except Unavailable as error:
        campaign.skipped[name] = str(error)
        bar.write(f"{name}: left out: {error}")
        return
    except Exception as error:  # what nobody foresaw is not survived
        workloads = KINDS[name].workloads
        reason = f"{type(error).__name__}: {error}"
        faults = [Fault(name, workloads[seed % len(workloads)], seed, "outside of the trial", None, reason=reason)]
    if not faults:
        campaign.empty[name] += 1
        bar.write(f"{name}, seed {seed}: nothing was hurt")
    campaign.faults += faults
    bar.total = max(bar.total or 0, bar.n + len(faults))
    bar.update(len(faults))
    bar.set_postfix_str(name)
    for fault in faults:
        if not fault.survived:
            bar.write(f"NOT SURVIVED: {name}, {fault.workload}, seed {fault.seed}: {fault.moment}: {fault.reason}")


def format_campaign(report: dict[str, Any], seconds: float) -> str:
    """A table of the kinds, and the sums."""
    width = max(map(len, [*KINDS, "kind"]))
    lines = [f"{'kind':{width}}  injected  survived"]
    lines += [f"{name:{width}}  {n['injected']:8}  {n['survived']:8}" for name, n in report["kinds"].items()]
    lines += [f"{'all':{width}}  {report['injected']:8}  {report['survived']:8}"]
    lines += [f"left out: {name}: {reason}" for name, reason in report["skipped"].items()]
    untold = [name for name, numbers in report["kinds"].items() if numbers["samples_lost"] is None]
    lost = f"none; not known of {', '.join(untold)}" if untold else "none"
    lines += [
        f"samples lost or seen twice by the final weights: {lost}",
        f"work done again: {report['steps_repeated']} steps ({report['samples_computed_again']} pictures), "
        f"known of {report['steps_repeated_known_of']} of {report['injected']} faults",
        f"{seconds / 60:.1f} minutes",
    ]
    return "\n".join(lines)


def make_lab(folder: Path) -> Lab:
    """A lab in a new folder or an earlier one's."""
    folder.mkdir(parents=True, exist_ok=True)
    return Lab(folder)
