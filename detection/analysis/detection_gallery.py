"""The command `detection_gallery`: pictures with ground truth beside what runs found, as sheets and a page."""

import re
from collections.abc import Sequence
from html import escape as escape_html
from pathlib import Path
from typing import Literal

from backbones.cli import run_command
from backbones.engine.checkpoint import write_atomically
from backbones.engine.outputs import check_writable, refuse_results
from backbones.errors import ConfigError, RunFolderError
from backbones.progress import progress_bar
from backbones.text import printable
from detection.analysis.gallery_sheet import (
    MEANINGS,
    Counts,
    count_by_picture,
    draw_sheet,
    evenly_spaced,
    kind_of,
    most_different,
    outcomes_from,
    rows_of,
)
from detection.analysis.outcomes import Outcomes
from detection.analysis.runs import read_runs
from detection.data.annotations import Annotations, DetectionDataset
from detection.data.pictures import PictureFiles
from detection.drawing import save_picture
from detection.evaluate.inputs import read_truth

_STYLE = """body { font-family: sans-serif; margin: 1.5em; color: #222; }
img { max-width: 100%; border: 1px solid #ccc; }
section { margin: 2.5em 0; } h2 { font-size: 1.1em; } li { margin: 0.2em 0; } summary { cursor: pointer; }"""


def make_gallery(
    annotations: Path,
    detections: list[Path],
    output: Path,
    names: list[str] = [],  # noqa: B006 (read by the command line, never changed)
    images: Path | None = None,
    split: str = "test",
    count: int = 20,
    min_score: float = 0.5,
    choose: Literal["different", "even"] = "different",
    overwrite: bool = False,
) -> None:
    """Shows pictures with their objects beside what one or more detectors found, right and wrong (TIDE's types).

    Writes a PNG for each picture and index.html, which shows them all. Example: python tools/detection_gallery.py
    --annotations annotations/instances_val2017.json --images val2017 --detections runs/vgg16-test runs/resnet101-test
    --names VGG-16 ResNet-101 --output gallery

    Args:
        annotations: COCO annotation file (JSON), or VOC year folder.
        detections: of each run: for COCO a results file (JSON) or a folder that evaluate_detector wrote; for VOC a
            folder of comp4_det_<split>_<class>.txt.
        output: the folder to write.
        names: what to call the runs, in their order; by default as their files are called.
        images: the folder of COCO's pictures.
        split: the split of a VOC year folder.
        count: how many pictures to show.
        min_score: detections below this score are left out.
        choose: the pictures in which the runs are most different (F1 at min_score, the furthest apart first); or even
            steps through the data set, as always with one run.
        overwrite: replace a gallery that the folder holds.
    """
    if count < 1:
        raise ConfigError(f"count {count}: give 1 or more")
    page = output / "index.html"
    refuse_results(output, [page.name, *_pictures_in(output)], overwrite)
    dataset = read_truth(annotations, split, images=images, need_pictures=True)
    truth = dataset.annotations
    runs = read_runs(annotations, split, truth, detections, names)
    outcomes = {run.name: outcomes_from(truth, run.detections, min_score) for run in runs}
    counts = {name: count_by_picture(truth, each) for name, each in outcomes.items()}
    differing = choose == "different" and len(runs) > 1
    chosen = most_different(list(counts.values()), count) if differing else evenly_spaced(len(truth), count)
    check_writable(page)
    for name in (page.name, *_pictures_in(output)):  # of a gallery before
        (output / name).unlink(missing_ok=True)
    sections = []
    for place, index in enumerate(progress_bar(chosen, unit="picture"), 1):
        here = {name: each[index] for name, each in counts.items()}
        titles = ["ground truth", *(f"{name}: {_summary(each)}" for name, each in here.items())]
        sheet = draw_sheet(dataset.load_image(index), index, truth, outcomes, titles)
        file = f"picture-{place:03d}.png"
        save_picture(sheet, output / file)
        sections.append(_section(file, _identity(dataset, index), index, truth, outcomes, here))
    how = "those in which the runs' F1 is furthest apart, the furthest first" if differing else "in even steps"
    text = f"{len(chosen)} of {len(truth)} pictures, {how}; detections with a score of {min_score:g} or more."
    write_atomically(page, lambda temporary: temporary.write_text(_page(text, sections), encoding="utf-8"))
    print(f"{text}\nwritten to {page}")


def _pictures_in(folder: Path) -> list[str]:
    """The names of a gallery's pictures in a folder; none where there is no folder. Raises RunFolderError."""
    try:
        names = [path.name for path in folder.glob("picture-*.png")]
    except OSError as error:
        raise RunFolderError(f"{folder}: can't be read ({error.strerror})") from error
    return sorted(name for name in names if re.fullmatch(r"picture-\d{3,}\.png", name))


def _escape(text: str) -> str:
    """Names as a page can show them: they may come from foreign files."""
    return escape_html(printable(text))


def _identity(dataset: DetectionDataset, index: int) -> str:
    """The id of a picture, and the name of its file where that is another."""
    identity = str(dataset.annotations.image_ids[index])
    if isinstance(dataset.load_image, PictureFiles) and (file := Path(dataset.load_image.path(index))).stem != identity:
        identity += f", {file.name}"
    return _escape(identity)


def _summary(counts: Counts) -> str:
    claimed = f" ({counts.claimed} of them with a wrong box)" if counts.claimed else ""
    return f"F1 {counts.f1:.2f}, {counts.right} right, {counts.wrong} wrong, {counts.overlooked} not found{claimed}"


def _page(text: str, sections: Sequence[str]) -> str:
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>Detections</title>',
            f"<style>\n{_STYLE}\n</style>\n</head>\n<body>\n<h1>Detections</h1>\n<p>{_escape(text)}</p>",
            *sections,
            "</body>\n</html>\n",
        ]
    )


def _section(
    file: str, identity: str, index: int, truth: Annotations, outcomes: dict[str, Outcomes], counts: dict[str, Counts]
) -> str:
    height, width = truth.sizes[index].tolist()
    lines = [
        f"<section>\n<h2>{identity} ({width} x {height})</h2>",
        f'<a href="{file}"><img src="{file}" alt="objects and detections of {identity}" loading="lazy"></a>\n<ul>',
        f"<li>ground truth: {_escape(', '.join(_objects(truth, index)) or 'no objects')}</li>",
    ]
    for name, each in outcomes.items():
        found = "".join(f"<li>{_escape(line)}</li>" for line in _captions(truth, each, index))
        summary = f"{_escape(name)}: {_summary(counts[name])}"
        lines.append(f"<li><details><summary>{summary}</summary><ul>{found}</ul></details></li>")
    return "\n".join([*lines, "</ul>\n</section>"])


def _objects(truth: Annotations, index: int) -> list[str]:
    rows = rows_of(truth.images, index)
    return [truth.class_names[truth.labels[row] - 1] + " (ignored)" * bool(truth.ignore[row]) for row in rows]


def _captions(truth: Annotations, outcomes: Outcomes, index: int) -> list[str]:
    """A line for each detection of a picture, best score first, and for each missed object."""
    lines = []
    for row in rows_of(outcomes.images, index):
        kind = kind_of(outcomes, row)
        what = MEANINGS[kind]
        if kind == "classification":
            what += f", it is {truth.class_names[truth.labels[outcomes.objects[row]] - 1]}"
        lines.append(f"{truth.class_names[outcomes.labels[row] - 1]} {outcomes.scores[row]:.2f}: {what}")
    missed = [row for row in rows_of(truth.images, index) if outcomes.missed[row]]
    return lines + [f"{truth.class_names[truth.labels[row] - 1]}: {MEANINGS['missed']}" for row in missed]


def main(argv: Sequence[str] | None = None) -> None:
    """The command `detection_gallery`."""
    run_command(make_gallery, argv=argv)
