"""One process of the fuzzer: libFuzzer, by way of atheris, on one target. `python -m tests.fuzz` starts it.

libFuzzer keeps an input whenever it reaches an edge of our code that none before it has, and goes on from those.
"""

import hashlib
import json
import os
import random
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import atheris

from .minimising import minimise

LARGEST = 2**16  # bytes of an input
_HUNG = 120  # seconds after which an input is given up that no Python code can stop: inside of a library
_MEMORY = 4096  # MiB that the process may take more than it needs: the machine is not to suffer
_STRUCTURED = 0.6  # the share of mutations that keep the structure


def main(name: str, seconds: int, folder: Path) -> None:
    """Fuzzes a target; leaves `stats.json`, and findings in `found/`, in a folder.

    Args:
        name: of the target.
        seconds: how long.
        folder: made by the caller; inputs in its folder `corpus` are gone on from.
    """
    with atheris.instrument_imports(include=["backbones", "detection"]):
        from .targets import find, look

    from .guard import limited_memory

    target = find(name)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (libFuzzer's own lines still go to the log)
    stats: dict[str, Any] = {"inputs": 0, "findings": {}, "largest_seconds": 0.0}
    shown = 0.0
    scratch = Path(tempfile.mkdtemp(dir=folder))  # the caller's to remove: libFuzzer leaves without a word
    with limited_memory(_MEMORY):
        run = target.open(scratch)

        def is_still(kind: str, data: bytes) -> bool:
            finding = look(target, run, data)
            return finding is not None and finding.kind == kind

        def one_input(data: bytes) -> None:
            nonlocal shown
            started = time.process_time()
            finding = look(target, run, data)
            stats["largest_seconds"] = max(stats["largest_seconds"], time.process_time() - started)
            stats["inputs"] += 1
            if finding and finding.kind not in stats["findings"]:
                small = minimise(data, partial(is_still, finding.kind))
                digest = hashlib.sha256(small).hexdigest()[:16]
                (folder / "found" / digest).write_bytes(small)
                (folder / "found" / f"{digest}.txt").write_text(f"{finding.kind}\n\n{finding.text}")
                stats["findings"][finding.kind] = digest
                shown = 0
            if time.monotonic() - shown > 0.5:
                shown = time.monotonic()
                (folder / "stats.json").write_text(json.dumps(stats))

        def mutate(data: bytes, most: int, seed: int) -> bytes:
            rng = random.Random(seed)
            if target.mutate is not None and rng.random() < _STRUCTURED:
                changed = None
                with suppress(Exception):  # what writes such files may know of no way to write this one
                    changed = target.mutate(bytes(data), rng)
                if changed is not None and len(changed) <= most:
                    return changed
            return atheris.Mutate(data, most)

        options: dict[str, Any] = {
            "max_total_time": seconds,
            "max_len": LARGEST,
            "timeout": _HUNG,
            "rss_limit_mb": 0,
            "detect_leaks": 0,
        }
        options |= {"artifact_prefix": f"{folder}/killed/", "print_final_stats": 1, "reload": 0}
        if target.tokens:  # libFuzzer takes no empty file
            options["dict"] = folder / "tokens"
            (folder / "tokens").write_text("".join(f'"{token}"\n' for token in target.tokens))
        argv = [sys.argv[0], *(f"-{key}={value}" for key, value in options.items()), str(folder / "corpus")]
        atheris.Setup(argv, one_input, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
