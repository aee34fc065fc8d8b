"""Detecting objects in pictures. Also the command `detect`."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from backbones.cli import run_command
from backbones.data.pictures import ENDINGS
from backbones.engine.distributed import join_world
from backbones.engine.outputs import check_writable, refuse_results, write_json
from backbones.errors import DataError, RunFolderError
from backbones.progress import progress_bar
from detection.data.pictures import read_image
from detection.data.samples import scale_picture
from detection.drawing import draw_detections, save_picture
from detection.inference.detect import detect_in_picture
from detection.inference.ensemble import make_ensemble
from detection.inference.options import InferenceOptions
from detection.structures import Detections
from detection.weights import load_detectors

_LONGEST_STEM = 230  # bytes: file systems allow 255, with an ending, a number, and what a file half written is called


def detect(
    model: list[str],
    images: list[str],
    output: str,
    inference: InferenceOptions = InferenceOptions(),  # noqa: B008 (jsonargparse reads the default)
    min_score: float = 0.5,
    recursive: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    overwrite: bool = False,
) -> None:
    """Finds objects in pictures: writes each picture with boxes, and detections.json with all of them.

    A picture that can't be read is named and left out; the others are done, and the command ends with an error.
    Pictures are turned upright as the orientation tags of cameras say; boxes are in the pixels of the upright picture.
    Example: python tools/detect.py --model runs/voc --images street.jpg photos/ --output found

    Args:
        model: run folders or weights.safetensors files; several detectors of the same classes are an ensemble.
        images: picture files, or folders of them (not of what is in the folders inside, unless `recursive`).
        output: the folder for pictures and detections.json.
        inference: box refinement and voting, the image pyramid.
        min_score: boxes below this score are not drawn (detections.json has all).
        recursive: take the pictures in the folders inside folders, too.
        device: auto takes a GPU where there is one.
        overwrite: replace results that the folder holds.
    """
    paths = list(_picture_files(images, recursive))
    folder = Path(output)
    names = _free_names(paths)
    _check_output(folder, paths, names, overwrite)
    with join_world(device) as world:
        models = load_detectors(model)
        for detector, _ in models:
            detector.move_to(world.device)
        ensemble, classes = make_ensemble(models, inference), models[0][1].classes
        check_writable(folder / "detections.json")
        records: list[dict[str, Any]] = []
        unread: list[str] = []
        todo = list(zip(paths, names, strict=True))
        try:
            for path, name in progress_bar(todo, unit="picture", shown=len(paths) >= 10):
                try:
                    original = read_image(path, upright=True)
                except DataError as error:
                    unread.append(str(error))
                    continue
                found = detect_in_picture(ensemble, scale_picture(original, len(records), ensemble.views))
                save_picture(draw_detections(original, found, classes, min_score=min_score), folder / name)
                records.append({"image": str(path), "drawn": name, "objects": _objects(found, classes)})
        finally:  # who stops it has what is done
            write_json(folder / "detections.json", records)
    drawn = sum(o["score"] >= min_score for record in records for o in record["objects"])
    print(f"{len(records)} picture(s), {drawn} object(s) with a score of {min_score:g} or more, written to {folder}")
    if unread:
        more = f"; and {len(unread) - 5} more" if len(unread) > 5 else ""
        raise DataError(f"{len(unread)} of {len(paths)} pictures could not be read: {'; '.join(unread[:5])}{more}")


def _picture_files(images: Sequence[str], recursive: bool) -> Iterator[Path]:
    for text in images:
        path = Path(text)
        if path.is_dir():
            inside = path.rglob("*") if recursive else path.iterdir()
            found = sorted(p for p in inside if p.suffix.lower() in ENDINGS and p.is_file())
            if not found:
                deeper = "" if recursive else "; those in folders inside it are taken with --recursive"
                raise DataError(f"{path}: holds no pictures ({', '.join(sorted(ENDINGS))}){deeper}")
            yield from found
        elif path.is_file():
            yield path
        else:
            raise DataError(f"{path}: no such file or folder")


def _check_output(folder: Path, pictures: Sequence[Path], names: Sequence[str], overwrite: bool) -> None:
    if any(path.resolve().parent == folder.resolve() for path in pictures):
        raise RunFolderError(f"{folder} holds pictures that are read: name another --output for those with boxes")
    refuse_results(folder, ["detections.json", *names], overwrite)


def _free_names(paths: Sequence[Path]) -> list[str]:
    """File names for the drawn pictures; pictures of the same name from several folders get a number."""
    names: dict[str, None] = {}
    for path in paths:
        stem = path.stem
        while len(os.fsencode(stem)) > _LONGEST_STEM:
            stem = stem[:-1]
        name, number = f"{stem}.png", 2
        while name in names:
            name, number = f"{stem}-{number}.png", number + 1
        names[name] = None
    return list(names)


def _objects(found: Detections, classes: Sequence[str]) -> list[dict[str, Any]]:
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    return [{"class": classes[label - 1], "score": score, "box": box} for box, score, label in rows]


def main(argv: Sequence[str] | None = None) -> None:
    """The command `detect`."""
    run_command(detect, argv=argv)


if __name__ == "__main__":
    main()
