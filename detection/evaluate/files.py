"""Files of detections in COCO's and VOC's official forms, written and read back without loss."""

import json
import math
import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from backbones.engine.checkpoint import write_atomically
from backbones.errors import DataError, RunFolderError
from backbones.regular import read_regular_file
from backbones.text import is_utf8, printable
from detection.data.annotations import FURTHEST, Annotations
from detection.data.json_columns import column_of_ids, column_of_numbers, without_collection
from detection.data.json_lists import read_json_list
from detection.evaluate.arrays import DetectionTable, Floats, Indices
from detection.evaluate.listed_ids import ListedIds
from detection.structures import Detections

COCO_FILE = "detections.json"
ONE_BASED = np.array([1.0, 1.0, 0.0, 0.0])  # from (x1, y1, x2, y2) to VOC's inclusive corners that count from one
_MEND = "mend it or leave the detection out"
_ROUNDING = 1e-9  # pixels: adding 1 to a coordinate may lose its last digits


def write_coco_results(path: str | Path, annotations: Annotations, detections: Iterable[Detections]) -> None:
    """Writes COCO's results JSON, one detection a line: `image_id, category_id, bbox [x, y, width, height], score`.

    Args:
        path: the file.
        annotations: the N pictures and classes; ids in the file are the data set's own.
        detections: N, in the order of `annotations`; may be a generator, of which one item at a time is held.
    """

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8") as file:
            file.write("[")
            separator = "\n"
            for image_id, found in zip(annotations.image_ids, detections, strict=True):
                corners = found.boxes.double().reshape(-1, 4)
                boxes = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1)
                rows = zip(found.labels.tolist(), boxes.tolist(), found.scores.tolist(), strict=True)
                for label, box, score in rows:
                    category = annotations.category_ids[label - 1]
                    entry = {"image_id": image_id, "category_id": category, "bbox": box, "score": score}
                    file.write(separator + json.dumps(entry, allow_nan=False))
                    separator = ",\n"
            file.write("\n]\n")

    write_atomically(Path(path), write)


def read_coco_results(path: str | Path, annotations: Annotations) -> DetectionTable:
    """Detections from COCO's results JSON, float64, in the order of the file.

    Raises:
        DataError: the file can't be read, or an entry of it names an unknown picture or class, lacks something, has a
            number that is none, or a box of negative size.
    """
    file = Path(path)
    images = ListedIds("image_id", annotations.image_ids)
    categories = ListedIds("category_id", annotations.category_ids)
    columns: list[tuple[Indices, Floats, Floats, Indices]] = []
    count = 0
    with without_collection():
        for entries in read_json_list(file):
            columns.append(_coco_columns(entries, images, categories, f"{file}: detection number", count))
            count += len(entries)
    for listed in (images, categories):
        listed.refuse_unknown(lambda row: f"{file}: detection number {row + 1}", count)
    owners, boxes, scores, classes = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    return DetectionTable(owners, boxes, scores, classes + 1)


def _coco_columns(
    entries: list[Any], images: ListedIds, categories: ListedIds, name: str, start: int
) -> tuple[Indices, Floats, Floats, Indices]:
    """Pictures, boxes, scores and classes of some entries of a results file; `start` come before them."""

    def entry_at(row: int) -> str:
        return f"{name} {start + row + 1}"

    owners = images(column_of_ids(entries, "image_id", (int, str), entry_at), start)
    classes = categories(column_of_ids(entries, "category_id", (int, str), entry_at), start)
    boxes = column_of_numbers(entries, "bbox", entry_at, length=4)
    scores = column_of_numbers(entries, "score", entry_at)
    negative = (boxes[:, 2:] < 0).any(axis=1)
    if negative.any():
        row = int(negative.argmax())
        raise DataError(f"{entry_at(row)}: box {entries[row]['bbox']} has a negative size: {_MEND}")
    far = (np.abs(boxes) > FURTHEST).any(axis=1)
    if far.any():
        row = int(far.argmax())
        raise DataError(
            f"{entry_at(row)}: box {entries[row]['bbox']} reaches further than {FURTHEST:,.0f} pixels: {_MEND}"
        )
    boxes[:, 2:] += boxes[:, :2]
    return owners, boxes, scores, classes


def results_split(split: str) -> str:
    """How VOC's result files name a split: without its year."""
    return "+".join(part.strip().rpartition("/")[2] for part in split.split("+"))


def voc_results_file(folder: str | Path, split_name: str, class_name: str) -> Path:
    """The file of a class in a folder of VOC results. Raises DataError if the class's name can't be in a file name."""
    if not set("/\0").isdisjoint(class_name) or not is_utf8(class_name):
        raise DataError(f"class '{printable(class_name)}': there can't be a file of that name")
    return Path(folder) / f"comp4_det_{split_name}_{class_name}.txt"


def voc_results_in(folder: Path) -> list[str]:
    """The names of the VOC results files in a folder, of all splits; none where there is no folder.

    Raises:
        RunFolderError: there can't be such a folder.
    """
    try:
        return sorted(path.name for path in folder.glob("comp4_det_*_*.txt"))
    except OSError as error:
        raise RunFolderError(f"{folder}: can't be read ({error.strerror})") from error


def write_voc_results(
    folder: str | Path, split_name: str, annotations: Annotations, detections: Sequence[Detections]
) -> None:
    """Writes `comp4_det_<split>_<class>.txt` for each class: lines `<image id> <score> <xmin> <ymin> <xmax> <ymax>`.

    Corners are one-based and inclusive, as VOC's are: xmin is x1 + 1.
    """
    table = DetectionTable.of(detections, len(annotations))
    corners = table.boxes + ONE_BASED
    Path(folder).mkdir(parents=True, exist_ok=True)
    for label, name in enumerate(annotations.class_names, 1):
        rows = np.flatnonzero(table.labels == label)
        numbers = np.concatenate([table.scores[rows, None], corners[rows]], axis=1).tolist()
        pairs = zip(table.images[rows].tolist(), numbers, strict=True)
        lines = [" ".join([str(annotations.image_ids[image]), *map(repr, row)]) + "\n" for image, row in pairs]
        path = voc_results_file(folder, split_name, name)
        write_atomically(path, partial(Path.write_text, data="".join(lines), encoding="utf-8"))


def results_files(folder: Path, split: str, class_names: Sequence[str]) -> list[Path]:
    """The files that `write_results` writes. Raises DataError if a class's name can't be in a file name."""
    return [folder / COCO_FILE, *(voc_results_file(folder, results_split(split), name) for name in class_names)]


def write_results(folder: Path, split: str, annotations: Annotations, detections: Sequence[Detections]) -> None:
    """Writes detections in both forms, and removes VOC's files of an earlier evaluation: perhaps of another split.

    Raises:
        RunFolderError: they can't be written.
    """
    try:
        for name in voc_results_in(folder):
            (folder / name).unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        write_coco_results(folder / COCO_FILE, annotations, detections)
        write_voc_results(folder, results_split(split), annotations, detections)
    except OSError as error:
        raise RunFolderError(f"{folder}: can't be written ({error.strerror})") from error


def read_voc_results(folder: str | Path, split_name: str, annotations: Annotations) -> DetectionTable:
    """Detections from a folder of VOC results files, one a class, float64, each class in the order of its file.

    Raises:
        DataError: files of classes are missing, or a line is wrong; the message names file and line.
    """
    paths = [voc_results_file(folder, split_name, name) for name in annotations.class_names]
    missing = [path.name for path in paths if not os.path.exists(path)]
    if missing:
        raise DataError(
            f"{folder}: no file for {len(missing)} of {len(paths)} classes (each needs one; it may be empty): "
            f"{printable(', '.join(missing) + _other_names(folder, missing))}"
        )
    listed = ListedIds("image", [str(image_id) for image_id in annotations.image_ids], of="the split")
    images: list[Indices] = []
    labels: list[Indices] = []
    numbers: list[Floats] = []
    lines: list[Indices] = []
    count = 0
    for label, path in enumerate(paths, 1):
        names, rows, places = _read_class(path)
        images.append(listed(names, count))
        labels.append(np.full(len(names), label))
        numbers.append(np.array(rows, dtype=np.float64).reshape(-1, 5))  # a sixth of the memory of the numbers in rows
        lines.append(np.array(places, dtype=np.int64))
        count += len(names)

    def describe(row: int) -> str:
        path = paths[int(np.repeat(np.arange(len(paths)), [len(part) for part in lines])[row])]
        return f"{path}, line {np.concatenate(lines)[row]}"

    listed.refuse_unknown(describe, count)
    table = np.concatenate(numbers)
    boxes: NDArray[np.float64] = table[:, 1:] - ONE_BASED
    return DetectionTable(np.concatenate(images), boxes, table[:, 0], np.concatenate(labels))


def _other_names(folder: str | Path, missing: list[str]) -> str:
    """What the files might be called instead: another spelling, split or competition."""
    others = sorted(n for n in os.listdir(folder) if "_det_" in n and n.endswith(".txt"))
    others = [n for n in others if n.casefold() in {m.casefold() for m in missing}] or others
    return f"; there is {', '.join(others[:3])}{', ...' if len(others) > 3 else ''}" if others else ""


def other_voc_results(folder: str | Path, split_name: str, annotations: Annotations) -> list[str]:
    """The results files of the split in a folder of VOC results that are of no class of the annotations."""
    prefix, suffix = voc_results_file(folder, split_name, "").name.rsplit(".", 1)
    known = {voc_results_file(folder, split_name, name).name for name in annotations.class_names}
    names = sorted(os.listdir(folder))
    return [n for n in names if n.startswith(prefix) and n.endswith(f".{suffix}") and n not in known]


def _read_class(path: Path) -> tuple[list[str], list[tuple[float, ...]], list[int]]:
    """Of each detection: the id of the picture; score, xmin, ymin, xmax, ymax; the number of its line."""
    try:
        lines = read_regular_file(path, advice="put the detections of its class there").decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: can't be read ({error})") from error
    names, rows, numbers = [], [], []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        place = f"{path}, line {number}"
        if len(words) != 6:
            raise DataError(f"{place}: {len(words)} columns, not the 6 of '<image id> <score> <box>': {_MEND}")
        try:
            row = tuple(float(w) for w in words[1:])
        except ValueError:
            row = (math.nan,)
        if not all(map(math.isfinite, row)):
            raise DataError(f"{place}: '{line.strip()[:80]}' has something that is not a finite number: {_MEND}")
        _, xmin, ymin, xmax, ymax = row
        if min(xmax - xmin, ymax - ymin) + 1 < -_ROUNDING:  # corners are inclusive
            raise DataError(f"{place}: the box ({', '.join(words[2:])}) has a negative size: {_MEND}")
        if max(map(abs, row[1:])) > FURTHEST:
            raise DataError(
                f"{place}: the box ({', '.join(words[2:])}) reaches further than {FURTHEST:,.0f} pixels: {_MEND}"
            )
        names.append(words[0])
        rows.append(row)
        numbers.append(number)
    return names, rows, numbers
