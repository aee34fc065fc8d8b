"""Keeping a finished run: its record and curve as one small file of `results/`. Also the command `record_run`."""

import json
import shlex
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from backbones.cli import run_command
from backbones.engine.outputs import write_json
from backbones.errors import DataError, RunFolderError
from backbones.regular import read_regular_file

MOST_POINTS = 500
_LARGEST = 2**28  # bytes of a file of a run


def record_run(run: list[str], output: str) -> None:
    """Writes <output>/<config>-seed<N>.json for each finished run folder: run.json with the curve of metrics.jsonl.

    Example: python tools/record_run.py runs/bccd_resnet18 --output results/bccd

    Args:
        run: run folders.
        output: the folder of recorded runs of that data set.
    """
    for folder in map(Path, run):
        record = _read(folder / "run.json", _parse_record)
        if record.get("status") != "finished":
            raise RunFolderError(
                f"{folder}: its run is {record.get('status')}, not finished: wait for it, or go on with --resume"
            )
        lines = _read(folder / "metrics.jsonl", _parse_lines)
        name = _config_name(record["command"]) or folder.name
        path = Path(output) / f"{name}-seed{record['seed']}.json"
        write_json(path, record | {"curve": thin_out(lines)})
        print(path)


def thin_out(lines: Sequence[dict[str, Any]], most: int = MOST_POINTS) -> list[dict[str, Any]]:
    """At most `most` of the lines: every test line as long as there is room, and evenly spaced training lines."""
    tests = [i for i, line in enumerate(lines) if line["split"] == "test"][-most:]
    others = [i for i, line in enumerate(lines) if line["split"] != "test"]
    room = min(most - len(tests), len(others))
    kept = {others[round(i * (len(others) - 1) / max(room - 1, 1))] for i in range(room)}
    return [lines[i] for i in sorted(kept.union(tests))]


def _config_name(command: str) -> str | None:
    try:
        words = shlex.split(command)
    except ValueError:  # a quotation without an end
        return None
    for word, after in pairwise([*words, ""]):
        if word == "--config" or word.startswith("--config="):
            stem = Path(after if word == "--config" else word.removeprefix("--config=")).stem
            return stem if stem.isprintable() and not stem.startswith(".") else None
    return None


def _parse_record(text: str) -> dict[str, Any]:
    record = json.loads(text)
    if not (isinstance(record, dict) and isinstance(record.get("command"), str) and type(record.get("seed")) is int):
        raise ValueError("not the record of a run: no command, or no seed")
    return record


def _parse_lines(text: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in text.splitlines()]
    if not all(isinstance(line, dict) and "split" in line for line in lines):
        raise ValueError("not the metrics of a run")
    return lines


def _read(path: Path, parse: Any) -> Any:
    try:
        return parse(read_regular_file(path, largest=_LARGEST).decode())
    except FileNotFoundError as error:
        raise RunFolderError(f"{path}: no such file: name a run folder") from error
    except DataError as error:
        raise RunFolderError(f"{error}: name the folder of a finished run") from error
    except (OSError, ValueError, RecursionError) as error:
        raise RunFolderError(f"{path}: can't be read ({error}): name the folder of a finished run") from error


def main(argv: Sequence[str] | None = None) -> None:
    """The command `record_run`."""
    run_command(record_run, positional="run", argv=argv)


if __name__ == "__main__":
    main()
