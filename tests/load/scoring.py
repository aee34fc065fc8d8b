"""The memory and time that it takes to score the detections in many pictures."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from backbones.errors import UserError
from backbones.progress import progress_bar
from tests.load.detections import write_coco, write_voc

MOST_BYTES = 400
"""A detection may take. Its row of the table has 56, and sorting, cutting and comparing make some copies."""

Form = Literal["coco", "voc"]


def measure_scoring(form: Form, sizes: list[int], each: int, folder: Path) -> dict[str, Any]:
    """Scores made-up detections of `sizes` pictures, two or more sizes, the smallest first, by the command.

    Args:
        each: detections in a picture.
        folder: for the files, which are removed.

    Returns:
        For a JSON file; "flat" says whether memory grew by no more than `MOST_BYTES` a detection.
    """
    rows = []
    for pictures in sizes:
        place = folder / f"{form}_{pictures}"
        place.mkdir(parents=True)
        write: Callable[..., tuple[Path, Path]] = write_coco if form == "coco" else write_voc
        with progress_bar(total=pictures, unit="picture", description=f"making {form} files") as bar:
            truth, found = write(place, pictures, each, bar.update)
        rows.append({"pictures": pictures, "detections": pictures * each} | _score(form, truth, found, place))
        shutil.rmtree(place)
    growth = (rows[-1]["peak"] - rows[0]["peak"]) / (rows[-1]["detections"] - rows[0]["detections"])
    return {"runs": rows, "bytes_per_detection": round(growth, 1), "limit": MOST_BYTES, "flat": growth < MOST_BYTES}


def _score(form: Form, truth: Path, found: Path, folder: Path) -> dict[str, float]:
    metric = "coco" if form == "coco" else "voc07"
    command = [sys.executable, "tools/score_detections.py", "--annotations", str(truth), "--detections", str(found),
               "--metric", metric]  # fmt: skip
    began = time.monotonic()
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise UserError((folder / "log.txt").read_text()[-1000:])
    return {"seconds": round(time.monotonic() - began, 1), "peak": usage.ru_maxrss * 1024}
