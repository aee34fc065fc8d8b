"""Bad input of the fifth kind: where results are to be written."""

import os
from collections.abc import Callable
from typing import Any

from bad_detections import ANNOTATIONS
from bad_inputs import PRETRAIN, Kind, Place


def score(place: Place) -> list[Any]:
    return [
        "--annotations",
        place.write("t.json", ANNOTATIONS),
        "--detections",
        place.write("d.json", []),
        "--metric",
        "coco",
    ]


def errors(place: Place) -> list[Any]:
    return score(place)[:4]


def evaluate(place: Place) -> list[Any]:
    return ["--model", place.shared / "run", "--data.name", "shapes", "--data.test_size", "5", "--workers", "0"]


def detector(place: Place) -> list[Any]:
    return ["--model", place.shared / "detector", "--data.name", "shapes", "--data.test_size", "1"]


def detect(place: Place) -> list[Any]:
    return ["--model", place.shared / "detector", "--images", place.picture("a.png")]


def output(tool: str, name: str, arguments: Callable[[Place], list[Any]], path: Any, message: str) -> Kind:
    """An `--output` that can't be."""
    return Kind(name, tool, lambda p: [*arguments(p), "--output", path(p) if callable(path) else path], message)


def a_file(place: Place) -> str:
    return str(place.write("file", "mine"))


def a_pipe(place: Place) -> str:
    """Not a real device, which a command without the check would replace."""
    os.mkfifo(place.here / "pipe")
    return str(place.here / "pipe")


def not_utf8(place: Place) -> str:
    return os.fsdecode(os.fsencode(place.here) + b"/caf\xe9")


LONG = "y" * 300
KINDS = [
    output(
        "pretrain",
        "an output in /proc",
        lambda _: PRETRAIN,
        "/proc/nothing/run",
        "/proc/nothing/run: can't be written (No such file or directory)",
    ),
    output(
        "pretrain",
        "an output that is a file",
        lambda _: PRETRAIN,
        a_file,
        "HERE/file exists and is no run of ours: name another --output",
    ),
    output(
        "pretrain",
        "an output inside a file",
        lambda _: PRETRAIN,
        lambda p: f"{a_file(p)}/run",
        "HERE/file/run: can't be written (Not a directory)",
    ),
    output(
        "pretrain", "an output of 300 letters", lambda _: PRETRAIN, LONG, f"{LONG}: can't be ... (File name too long)"
    ),
    output(
        "pretrain",
        "an output that is not UTF-8",
        lambda _: PRETRAIN,
        not_utf8,
        "HERE/caf\\udce9: its name is not UTF-8, as weights files need: name another --output",
    ),
    output(
        "pretrain",
        "an output that is a device",
        lambda _: PRETRAIN,
        "/dev/null",
        "/dev/null exists and is no run of ours: name another --output",
    ),
    output(
        "evaluate_classifier",
        "results into a pipe",
        evaluate,
        a_pipe,
        "HERE/pipe: is a device or pipe; name a file",
    ),
    output(
        "evaluate_classifier", "results into a folder", evaluate, lambda p: p.here, "HERE: is a folder; name a file"
    ),
    output(
        "evaluate_detector", "results of 300 letters", detector, LONG, f"{LONG}: can't be read (File name too long)"
    ),
    output(
        "evaluate_detector",
        "results inside a file",
        detector,
        a_file,
        "HERE/file/results.json: can't be written (File exists)",
    ),
    output(
        "score_detections",
        "scores into /proc",
        score,
        "/proc/scores.json",
        "/proc/scores.json: can't be written (No such file or directory)",
    ),
    output(
        "score_detections",
        "scores over scores",
        score,
        lambda p: p.write("s.json", "{}"),
        "HERE holds results already (s.json): replace them with --overwrite or name another folder",
    ),
    output(
        "analyse_errors",
        "errors into a device",
        errors,
        "/dev/null",
        "/dev/null/errors.png: can't be written (File exists)",
    ),
    output(
        "detection_gallery", "a gallery of 300 letters", errors, LONG, f"{LONG}: can't be read (File name too long)"
    ),
    output(
        "detect",
        "pictures over their sources",
        detect,
        lambda p: p.here,
        "HERE holds pictures that are read: name another --output for those with boxes",
    ),
    output(
        "detect", "pictures inside a file", detect, a_file, "HERE/file/detections.json: can't be written (File exists)"
    ),
    output(
        "record_run",
        "a record inside a file",
        lambda p: [p.shared / "run"],
        a_file,
        "HERE/file/...json: can't be written (File exists)",
    ),
    output(
        "record_run",
        "a record in /proc",
        lambda p: [p.shared / "run"],
        "/proc/results",
        "/proc/results/...json: can't be written (No such file or directory)",
    ),
    output(
        "demo",
        "a demo in /proc",
        lambda _: [],
        "/proc/demo",
        "/proc/demo/summary.json: can't be written (No such file or directory)",
    ),
    output(
        "demo",
        "a demo in a full folder",
        lambda p: [p.write("x", "") and "--scale", "1"],
        lambda p: p.here,
        "HERE is not empty: replace the demo there with --overwrite or name another --output",
    ),
    output(
        "show_features",
        "figures inside a file",
        lambda p: ["--model", p.shared / "run", "--data.name", "shapes"],
        a_file,
        "HERE/file/filters.png: can't be written (File exists)",
    ),
    output(
        "layer_responses",
        "responses into a pipe",
        lambda p: ["--model", p.shared / "run"],
        a_pipe,
        "HERE/pipe: is a device or pipe; name a file",
    ),
]
