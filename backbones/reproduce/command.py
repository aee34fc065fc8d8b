"""The command `reproduce`: trains what a table or figure of the paper needs, and shows paper beside measured."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backbones.cli import run_command
from backbones.engine.outputs import check_writable
from backbones.errors import ConfigError, DataError, UserError
from backbones.jobs import run_jobs, usable_gpus
from backbones.reproduce.figures import make_figure
from backbones.reproduce.paper import ALL, PAPER_FILE, DataSet, Paper, read_paper
from backbones.reproduce.plan import PlannedRun, format_plan, job, run_folder
from backbones.reproduce.report import Circumstances, write_table
from backbones.reproduce.requests import Request, Scale, request
from backbones.reproduce.runs import Run, find_run


@dataclass(frozen=True)
class Work:
    """What was asked for, looked up in the declarative file.

    Args:
        paper: the file.
        names: of tables and figures.
        requests: by experiment, in the order of the tables.
        circumstances: data set, schedule and further options, which all runs share.
        folder: of the runs.
        seeds: of each experiment.
    """

    paper: Paper
    names: list[str]
    requests: dict[str, Request]
    circumstances: Circumstances
    folder: Path
    seeds: list[int]

    def plan(self) -> list[PlannedRun]:
        """Every run as it is on disk now."""
        return [
            PlannedRun(
                find_run(name, seed, self.folder / f"{name}-seed{seed}", wanted),
                wanted,
                self.paper.experiments[name].gpu_hours,
            )
            for name, wanted in self.requests.items()
            for seed in self.seeds
        ]


def reproduce(
    names: list[str],
    data: str | None = None,
    root: str | None = None,
    runs: str = "runs",
    seeds: list[int] = [0],  # noqa: B006 (read by the command line, never changed)
    experiments: list[str] = [],  # noqa: B006
    jobs: int = 1,
    scale: Scale = 1.0,
    set: dict[str, Any] | str = {},  # noqa: B006
    plan: bool = False,
    output: str = "reproduction",
    paper: str | None = None,
) -> None:
    """Reproduces tables and figures of the paper: trains what is missing, goes on with what was interrupted, leaves
    alone what is finished, then shows the paper's numbers beside those measured.

    Each number is the error after the last iteration, never the best one. Stopped by Ctrl-C or a kill, the same command
    goes on. Example: python tools/reproduce.py table6 fig6 --root data --seeds 0 1 2 --jobs 4

    Args:
        names: tables and figures of configs/paper.yaml, such as table6, fig6, fig7, warmup (a wrong one prints all), or
            all.
        data: the data set, by default the paper's; numbers on another one have no verdict.
        root: the folder of the data.
        runs: where run folders lie, as <data>[-x<scale>]/<experiment>-seed<k>.
        seeds: a run for each; mean and standard deviation are over them.
        experiments: only these rows.
        jobs: trainings at a time, each a process of its own; dealt out over all GPUs (on one they share it), and over
            the cores of a CPU.
        scale: shortens all schedules to this share (0.0625: 4,000 of 64,000 iterations); smoke: some 20 iterations.
        set: options of the training command for every run, by dotted key: '{precision: bf16, train.workers: 8}'.
        plan: show what would be done, and train nothing.
        output: the folder for tables (.md, .json) and figures (.png), which go into <data>[-x<scale>] there.
        paper: another declarative file than the checkout's configs/paper.yaml; its config files lie beside it.
    """
    if jobs < 1:
        raise ConfigError(f"jobs {jobs}: give 1 or more")
    if isinstance(set, str):
        raise ConfigError(f"set {set}: give options with their values as '{{precision: bf16}}'")
    file = Path(paper) if paper else PAPER_FILE
    work = _look_up(read_paper(paper), file.parent, names, data, Path(runs), seeds, experiments, scale, set)
    planned = work.plan()
    if plan:
        print(f"{', '.join(work.names)}: {work.circumstances.describe()}\n")
        print(format_plan(planned, work.paper.machine, len(usable_gpus()), jobs))
        return
    results = run_folder(Path(output), work.circumstances.name, scale)
    check_writable(results / "table")
    _refuse_running(planned)
    failures = _train(planned, work, root, jobs)
    _report(work, results, root, failures)
    broken = [p.run.reason for p in planned if p.run.state == "broken"]
    for problem in [*failures.values(), *broken]:
        print(problem, file=sys.stderr)
    ends = [f"{len(failures)} of {len(planned)} run(s) failed, see above; the same command tries them again"]
    ends += [f"{len(broken)} run folder(s) can't be used, see above"]
    if failures or broken:
        raise UserError("; ".join(text for text, count in zip(ends, (failures, broken), strict=True) if count))


def _look_up(
    paper: Paper,
    configs: Path,
    names: list[str],
    data: str | None,
    runs: Path,
    seeds: list[int],
    experiments: list[str],
    scale: Scale,
    options: dict[str, Any],
) -> Work:
    """Checks what was asked for against the file.

    Raises:
        ConfigError: a name that is not in it, or that doesn't go with another.
    """
    wanted = list(dict.fromkeys(paper.names() if ALL in names else names))
    for name in wanted:
        if name not in paper.names():
            raise ConfigError(f"{name}: no table or figure of the file; it has {', '.join(paper.names())} (or {ALL})")
    needed = list(dict.fromkeys(e for name in wanted for e in paper.experiments_of(name)))
    for experiment in experiments:
        if experiment not in needed:
            raise ConfigError(f"experiments {experiment}: not among those of {', '.join(wanted)}: {', '.join(needed)}")
    needed = [name for name in needed if not experiments or name in experiments]
    if not seeds or len(seeds) != len({*seeds}) or min(seeds) < 0:
        raise ConfigError(f"seeds {' '.join(map(str, seeds))}: give different numbers of 0 or more")
    chosen = _choose_data(paper, needed, data)
    requests = {
        name: request(paper.experiments[name], configs, paper.data[chosen], scale=scale, options=options)
        for name in needed
    }
    circumstances = Circumstances(chosen, paper.data[chosen], scale, options)
    return Work(paper, wanted, requests, circumstances, run_folder(runs, chosen, scale), seeds)


def _choose_data(paper: Paper, experiments: Sequence[str], data: str | None) -> str:
    own = {paper.experiments[name].data for name in experiments}
    if len(own) > 1:
        raise ConfigError(
            f"these experiments are on different data ({', '.join(sorted(own))}): ask for fewer at a time"
        )
    (theirs,) = own
    if data is None:
        return theirs
    fitting = [name for name, item in paper.data.items() if theirs in (name, item.stands_for)]
    if data not in fitting:
        raise ConfigError(f"data {data}: give one of {', '.join(fitting)}")
    return data


def _refuse_running(planned: Sequence[PlannedRun]) -> None:
    running = [p for p in planned if p.run.state == "running"]
    if running:
        processes = ", ".join(p.run.reason for p in running if p.run.reason)
        raise UserError(
            f"{', '.join(p.name for p in running)}: another process trains here now"
            f"{f' ({processes})' if processes else ''}: wait for it, or end it"
        )


def _train(planned: Sequence[PlannedRun], work: Work, root: str | None, at_once: int) -> dict[str, str]:
    """Trains what is to be trained; returns what went wrong, by run."""
    to_train = [p for p in planned if p.to_train]
    if not to_train:
        return {}
    _check_root(root, work.circumstances.data)
    if at_once > 1:  # the longest first, so that all end at about the same time
        to_train.sort(key=lambda p: p.hours_left, reverse=True)
    threads = _threads(min(at_once, len(to_train)))
    queue = [job(p, root, threads) for p in to_train]
    print(f"{len(queue)} run(s) to train in {work.folder}, {at_once} at a time; logs beside them", flush=True)
    try:
        failed = run_jobs(queue, work.folder, at_once=at_once, keep_going=True)
    except KeyboardInterrupt:
        left = sum(not item.succeeded for item in queue)
        print(f"stopped; {left} run(s) are left: the same command goes on from their checkpoints", file=sys.stderr)
        raise
    return {item.name: str(item.failure) for item in failed}


def _check_root(root: str | None, data: DataSet) -> None:
    if root is None and data.needs_root:
        raise DataError(f"root is missing: name the folder of {data.title}")
    if root is not None and not Path(root).is_dir():
        raise DataError(f"root {root}: no such folder")


def _threads(at_once: int) -> int:
    """Of each process on a CPU: its share of the cores, but no more than the user allows each."""
    share = max(1, (os.cpu_count() or 1) // at_once)
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(allowed)) if allowed.isdecimal() and int(allowed) > 0 else share


def _report(work: Work, output: Path, root: str | None, failures: Mapping[str, str]) -> None:
    """Writes and prints tables and figures from the runs as they are now."""
    found = [
        # One that failed before its folder was made has nothing there that says so.
        replace(p.run, state="failed", reason=failures[p.name]) if p.name in failures else p.run
        for p in work.plan()
    ]
    print("\n" + "\n\n".join(filter(None, [work.circumstances.describe(), work.circumstances.warning()])))
    by_experiment = {name: [run for run in found if run.experiment == name] for name in work.requests}
    for name in work.names:
        if name in work.paper.tables and by_experiment.keys() & work.paper.tables[name].experiments():
            print(f"\n{write_table(name, work.paper, by_experiment, work.circumstances, output)}")
        if name in work.paper.figures:
            first = {e: _first(by_experiment[e]) for e in work.paper.figures[name].experiments() if e in by_experiment}
            lines = make_figure(
                name,
                work.paper.figures[name],
                first,
                work.requests,
                work.paper.experiments,
                output,
                root=root,
                circumstances=work.circumstances,
            )
            print("\n" + "\n".join(lines))


def _first(runs: Sequence[Run]) -> Run:
    """The run that a figure shows of several seeds: the first that is finished."""
    return next((run for run in runs if run.state == "finished"), runs[0])


def main(argv: Sequence[str] | None = None) -> None:
    """The command `reproduce`."""
    run_command(reproduce, positional="names", argv=argv)


if __name__ == "__main__":
    main()
