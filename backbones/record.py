"""Keeping a finished run: its record and curve as one small file of `results/`. Also the command `record_run`."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backbones.cli import run_command
from backbones.engine.run import write_json
from backbones.errors import RunFolderError

MOST_POINTS = 500


def record_run(run: list[str], output: str) -> None:
    """Writes <output>/<config>-seed<N>.json for each finished run folder: run.json with the curve of metrics.jsonl.

    Example: python tools/record_run.py runs/bccd_resnet18 --output results/bccd

    Args:
        run: run folders.
        output: the folder of recorded runs of that data set.
    """
    for folder in map(Path, run):
        record = _read(folder / "run.json", json.loads)
        if record.get("status") != "finished":
            raise RunFolderError(f"{folder}: its run is {record.get('status')}, not finished")
        lines = _read(folder / "metrics.jsonl", lambda text: [json.loads(line) for line in text.splitlines()])
        config = re.search(r"--config[ =](\S+)", record["command"])
        name = Path(config[1]).stem if config else folder.name
        path = Path(output) / f"{name}-seed{record['seed']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, record | {"curve": thin_out(lines)})
        print(path)


def thin_out(lines: Sequence[dict[str, Any]], most: int = MOST_POINTS) -> list[dict[str, Any]]:
    """At most `most` of the lines: every test line as long as there is room, and evenly spaced training lines."""
    tests = [i for i, line in enumerate(lines) if line["split"] == "test"][-most:]
    others = [i for i, line in enumerate(lines) if line["split"] != "test"]
    room = min(most - len(tests), len(others))
    kept = {others[round(i * (len(others) - 1) / max(room - 1, 1))] for i in range(room)}
    return [lines[i] for i in sorted(kept.union(tests))]


def _read(path: Path, parse: Any) -> Any:
    try:
        return parse(path.read_text())
    except FileNotFoundError as error:
        raise RunFolderError(f"{path}: no such file: name a run folder") from error
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path}: can't be read ({error})") from error


def main(argv: Sequence[str] | None = None) -> None:
    """The command `record_run`."""
    run_command(record_run, positional="run", argv=argv)


if __name__ == "__main__":
    main()
