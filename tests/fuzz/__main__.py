"""The command `python -m tests.fuzz`: fuzzes parsers, some minutes each, and writes down what came of it."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from backbones.cli import run_command
from backbones.engine.machine import describe_machine
from backbones.engine.outputs import check_writable, write_json
from backbones.errors import ConfigError
from backbones.markdown import format_table
from backbones.progress import progress_bar

from .targets import TARGETS, find

CRASHES = Path(__file__).parent / "crashes"
_STARTING = 120  # seconds that a process may take to import all of PyTorch on a busy machine, and to end


def fuzz(target: list[str] = [], minutes: float = 5.0, output: Path | None = None, jobs: int = 1) -> None:  # noqa: B006
    """Fuzzes parsers by coverage, and tells how many inputs were tried, what they reached, and what went wrong.

    An input must be taken, or be refused with an error for the user: anything else is a finding, which is made small
    and written to tests/fuzz/crashes/TARGET/. Needs atheris: pip install '.[fuzz]'. Example:
    python -m tests.fuzz voc_xml coco --minutes 5 --output results/fuzz.json

    Args:
        target: names of targets; all by default.
        minutes: for each.
        output: where to write the table, as JSON; rows of other targets that are there already stay.
        jobs: how many targets are fuzzed at a time.
    """
    names = target or list(TARGETS)
    for name in names:
        find(name)
    if importlib.util.find_spec("atheris") is None:
        raise ConfigError("fuzzing needs atheris: pip install '.[fuzz]'")
    if not 0 < minutes < 1e4 or jobs < 1:
        raise ConfigError(f"--minutes {minutes:g} --jobs {jobs}: give more than 0")
    if output is not None:
        check_writable(output)
    seconds = max(1, round(60 * minutes))
    with (
        progress_bar(total=len(names) * seconds, unit="s", description="fuzzing") as bar,
        ThreadPoolExecutor(jobs) as pool,
    ):
        rows = []
        for row in pool.map(lambda name: _fuzz_target(name, seconds, bar), names):
            rows.append(row)
            if output is not None:
                write_json(output, {**describe_machine(("torch", "numpy", "pillow")), "targets": _merged(output, rows)})
    print(_table(rows))
    if output is not None:
        print(f"\nwritten to {output}")


def _fuzz_target(name: str, seconds: int, bar: Any) -> dict[str, Any]:
    """The row of a target."""
    row: dict[str, Any] = {"target": name, "seconds": 0, "inputs": 0, "edges": 0, "corpus": 0, "findings": []}
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # a disk would be written to all the time
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-", dir=memory) as place:
        folder = Path(place)
        for inner in ("corpus", "found", "killed"):
            (folder / inner).mkdir()
        for number, seed in enumerate(find(name).seeds()):
            (folder / "corpus" / f"seed{number}").write_bytes(seed)
        while row["seconds"] < seconds:  # again after a process was killed by what it was given
            before = len(_killers(folder))
            ran, code = _run_worker(name, seconds - row["seconds"], folder, bar)
            log, stats = (folder / "log").read_text(errors="replace"), _read_stats(folder)
            row["inputs"] += stats["inputs"]
            row["seconds"] += ran
            row["edges"] = max([row["edges"], *map(int, re.findall(r" cov: (\d+)", log))])
            row["findings"] += [kind for kind in stats["findings"] if kind not in row["findings"]]
            if code:
                killed = len(_killers(folder)) - before
                if not killed and code > 0:
                    raise RuntimeError(f"the fuzzer of {name} failed: {log[-1000:]}")
                row["findings"].append(f"the process was killed ({_last_line(log)})")
        row["corpus"] = len(list((folder / "corpus").iterdir()))
        for found in (*(folder / "found").iterdir(), *_killers(folder)):
            (CRASHES / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(found, CRASHES / name / found.name)
    return row


def _run_worker(name: str, seconds: int, folder: Path, bar: Any) -> tuple[int, int]:
    """Starts a process and waits for its end. Returns the seconds that it fuzzed, and its exit code."""
    command = [sys.executable, "-m", f"{__package__}.worker", name, str(seconds), str(folder)]
    stats = folder / "stats.json"
    stats.unlink(missing_ok=True)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            done = 0
            started = None
            ends = time.monotonic() + seconds + 2 * _STARTING
            while process.poll() is None and time.monotonic() < ends:
                time.sleep(0.5)
                if started is None and stats.exists():
                    started = time.monotonic()
                now = 0 if started is None else min(seconds, round(time.monotonic() - started))
                bar.update(now - done)
                done = now
        finally:
            process.kill()
            process.wait()
    return (seconds if process.returncode == 0 else max(1, done)), process.returncode


def _killers(folder: Path) -> list[Path]:
    """The inputs that ended a process; libFuzzer puts slow ones beside them, which on a busy machine say nothing."""
    return [path for path in (folder / "killed").iterdir() if not path.name.startswith("slow-unit")]


def _last_line(log: str) -> str:
    """What libFuzzer said of the end of a process."""
    return next(
        (line for line in reversed(log.splitlines()) if "ERROR" in line or "SUMMARY" in line), "no reason known"
    )


def _read_stats(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "stats.json").read_text())
    except (OSError, ValueError):
        return {"inputs": 0, "findings": {}}


def _merged(output: Path, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """These rows and those of other targets that the file has."""
    try:
        earlier = {row["target"]: row for row in json.loads(output.read_text())["targets"]}
    except (OSError, ValueError, KeyError, TypeError):
        earlier = {}
    rows_of = earlier | {row["target"]: row for row in rows}
    return [rows_of[name] for name in TARGETS if name in rows_of]


def _table(rows: Sequence[dict[str, Any]]) -> str:
    cells = [
        [row["target"], f"{row['seconds']:,}", f"{row['inputs']:,}", f"{row['edges']:,}", str(len(row["findings"]))]
        for row in rows
    ]
    text = format_table([["target", "seconds", "inputs", "edges", "findings"], *cells], texts=1)
    kinds = [f"{row['target']}: {kind}" for row in rows for kind in row["findings"]]
    return "\n".join([text, *kinds])


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    run_command(fuzz, positional="target", program="python -m tests.fuzz", argv=argv)


if __name__ == "__main__":
    main()
