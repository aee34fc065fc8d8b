"""Long runs: whether memory, open files and threads stay as they are. `python -m tests.load --help`."""

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from backbones.cli import run_command
from backbones.engine.machine import describe_machine
from backbones.engine.outputs import write_json
from backbones.progress import progress_bar
from tests.load.commands import classifier, detector
from tests.load.pictures import link_class_folders, link_coco
from tests.load.scoring import measure_scoring
from tests.load.training import watch_and_resume

Part = Literal["classifier", "detector", "scoring"]


def load(
    part: list[Part] = ["classifier", "detector", "scoring"],  # noqa: B006 (never changed)
    minutes: float = 15,
    workers: int = 4,
    pictures: int = 1_000_000,
    detector_pictures: int = 100_000,
    scored_pictures: list[int] = [25_000, 100_000],  # noqa: B006
    detections: int = 100,
    classes: int = 1000,
    every: float = 3,
    folder: Path | None = None,
    output: Path | None = None,
) -> None:
    """Watches trainings on very many pictures, and scores very many detections. Fails if something grows.

    Args:
        part: what to do: train a classifier, train a detector, score detections (in COCO's and VOC's files).
        minutes: to watch each training: four fifths in one run, which is killed, the rest in the same run resumed.
        workers: loading processes.
        pictures: in the classifier's training set: names of a few hundred files.
        detector_pictures: in the detector's training set.
        scored_pictures: scored pictures, two numbers or more.
        detections: in each of the scored pictures; a fifth of that in VOC's files.
        classes: of the classifier.
        every: seconds between measurements.
        folder: where to make data and runs, in a new folder that is removed; by default where temporary files belong.
        output: where to write the numbers, as JSON.
    """
    results: dict[str, Any] = {}

    def tell(name: str, result: dict[str, Any]) -> None:
        """At once: what comes later may fail."""
        results[name] = result
        print("\n".join(_table(name, result)), flush=True)
        if output is not None:
            write_json(output, results | describe_machine())

    place = Path(tempfile.mkdtemp(prefix="load-", dir=folder))
    try:
        if "classifier" in part:
            with progress_bar(total=pictures, unit="picture", scaled=True, description="making class folders") as bar:
                link_class_folders(place / "folders", pictures, classes, bar.update)
            training = classifier(place / "folders", place / "classifier", workers)
            tell("classifier", watch_and_resume(training, pictures, minutes, every))
        if "detector" in part:
            with progress_bar(total=detector_pictures, unit="picture", scaled=True, description="making COCO") as bar:
                link_coco(place / "coco", detector_pictures, bar.update)
            training = detector(place / "coco", place / "detector", workers)
            tell("detector", watch_and_resume(training, detector_pictures, minutes, every))
        if "scoring" in part:
            tell("scoring_coco", measure_scoring("coco", scored_pictures, detections, place))
            tell("scoring_voc", measure_scoring("voc", scored_pictures, max(1, detections // 5), place))
    finally:
        with progress_bar(total=1, unit="folder", description="removing files", stays=False):
            shutil.rmtree(place)
    if output is not None:
        print(f"\nwritten to {output}")
    if not all(result["flat"] for result in results.values()):
        short = [name for name, result in results.items() if not result.get("enough", True)]
        reason = f"{', '.join(short)}: too few evaluations to tell, set more --minutes" if short else "something grows"
        print(f"error: {reason}, see above", file=sys.stderr)
        sys.exit(1)


def _table(name: str, result: dict[str, Any]) -> list[str]:
    if "runs" in result:
        lines = [f"\n{name}: {'pictures':>12}{'detections':>14}{'seconds':>10}{'peak MB':>10}"]
        for row in result["runs"]:
            numbers = f"{row['pictures']:>12,}{row['detections']:>14,}{row['seconds']:>10.1f}{row['peak'] / 1e6:>10.0f}"
            lines.append(" " * len(name) + f"  {numbers}")
        verdict = "bounded" if result["flat"] else "MORE THAN IT SHOULD"
        return [*lines, f"{result['bytes_per_detection']} bytes a detection (limit {result['limit']}): {verdict}"]
    start, resumed = result["start"], result["resumed"]
    lines = [
        f"\n{name}: {result['pictures_seen']:,} pictures of {result['pictures']:,} in {result['minutes']:.1f} minutes, "
        f"{result['epochs']} epochs, {result['evaluations']} evaluations, {result['workers']} workers",
        f"start: data read in {start['seconds_to_read']:.1f} s, first steps after {start['seconds_to_steps']:.1f} s, "
        f"peak {start['peak'] / 1e6:.0f} MB; killed, resumed at step {resumed['first_step']} after "
        f"{resumed['seconds_to_steps']:.1f} s, peak {resumed['peak'] / 1e6:.0f} MB, {resumed['steps_on']} steps on, "
        f"stopped by SIGTERM with exit code {resumed['exit_code']}; {result['processes_left']} processes left over",
        f"{'':<30}{'first':>9}{'last':>9}{'highest':>9}{'KB/minute':>11}{'KB/1000 pict.':>15}{'rise':>8}{'limit':>8}",
    ]
    for what, trend in result["trends"].items():
        memory = "files" not in what and "threads" not in what
        big, small = (1e6, 1e3) if memory else (1, 1)
        lines.append(
            f"{what:<30}{trend['first'] / big:>9.1f}{trend['last'] / big:>9.1f}{trend['highest'] / big:>9.1f}"
            f"{trend['per_minute'] / small:>11.2f}{trend['per_1000_pictures'] / small:>15.3f}"
            f"{trend['rise'] / big:>8.2f}{trend['limit'] / big:>8.2f}  {'flat' if trend['flat'] else 'GROWS'}"
        )
    return [
        *lines,
        "(memory in MB; anonymous: that of no file; all processes: what they share counts once)",
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    run_command(load, argv=argv)


if __name__ == "__main__":
    main()
