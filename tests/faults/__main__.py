"""The long form of the fault harness: `python -m tests.faults --output results/faults.json`."""

import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from backbones.cli import run_command
from backbones.engine.machine import describe_machine
from backbones.engine.outputs import check_writable, write_json
from backbones.errors import ConfigError, UserError
from backbones.progress import progress_bar
from tests.faults.campaign import format_campaign, make_lab, run_campaign
from tests.faults.kinds import KINDS
from tests.faults.lab import Broken


def inject_faults(
    count: int = 100,
    output: str | None = None,
    kinds: list[str] = list(KINDS),  # noqa: B006
    jobs: int = 2,
    folder: str | None = None,
) -> None:
    """Hurts real runs, goes on with them, and compares each bit by bit with the undisturbed one.

    Exit code 1 if one did not survive, or a kind or the count was not reached; the run folders that differ and what
    their processes printed are kept then.

    Args:
        count: how many faults to inject, at least, and one of each kind; kinds take turns.
        output: a JSON file with the counts and a row for each fault.
        kinds: which of them, by name.
        jobs: runs that are hurt at a time.
        folder: where to work, by default in a temporary folder; undisturbed runs in it are used again.
    """
    if count < 1 or jobs < 1:
        raise ConfigError("count and jobs: give 1 or more")
    if not kinds or set(kinds) - set(KINDS):
        raise ConfigError(f"kinds {kinds}: choose of {', '.join(map(repr, KINDS))}")
    if output:
        check_writable(Path(output))
    started = time.monotonic()
    place = Path(folder or tempfile.mkdtemp(prefix="faults_")).resolve()
    try:
        lab = make_lab(place)
        with progress_bar(total=count, unit="fault") as bar:
            campaign = run_campaign(lab, kinds, count, jobs, bar)
    except BaseException as error:  # Ctrl-C too
        print(f"kept: {place}", flush=True)
        if isinstance(error, Broken):
            raise UserError(str(error)) from error
        raise
    seconds = time.monotonic() - started
    report = campaign.to_json({name: workload.batch_size for name, workload in lab.workloads.items()})
    print(format_campaign(report, seconds))
    if output:
        write_json(Path(output), report | {"seconds": round(seconds, 1)} | describe_machine())
        print(f"written: {output}")
    none = [name for name, numbers in report["kinds"].items() if not numbers["injected"]]
    if none:
        print(f"never injected: {', '.join(none)}")
    if none or report["survived"] < report["injected"] or report["injected"] < count:
        print(f"kept: {place}")
        sys.exit(1)
    if folder is None:
        shutil.rmtree(place)


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    run_command(inject_faults, program="python -m tests.faults", argv=argv)


if __name__ == "__main__":
    main()
