"""Bad input of the fourth kind: weights, checkpoints and records of runs."""

import json
import math
import os
import pickle
import shutil
from collections.abc import Callable
from typing import Any

import torch
from bad_data import Trap
from bad_inputs import PRETRAIN, Kind, Place
from safetensors import safe_open
from safetensors.torch import load_file, save_file

State = dict[str, torch.Tensor]


def weights(
    name: str,
    message: str,
    change: Callable[[State], Any] = lambda state: None,
    texts: dict[str, str] | None = None,
    **metadata: Any,
) -> Kind:
    """A weights file that the test of a classifier refuses.

    Args:
        change: changes the tensors by name.
        texts: of the metadata, as they are.
        metadata: written as JSON.
    """

    def arguments(place: Place) -> list[Any]:
        source, file = place.shared / "run" / "weights.safetensors", place.here / "w.safetensors"
        with safe_open(source, "pt") as opened:
            written = opened.metadata()
        del written["sha256"]  # whoever makes such a file leaves it out
        state = load_file(source)
        change(state)
        save_file(state, file, written | {key: json.dumps(value) for key, value in metadata.items()} | (texts or {}))
        return evaluate(file)

    return Kind(name, "evaluate_classifier", arguments, f"HERE/w.safetensors: {message}")


def evaluate(model: Any) -> list[Any]:
    return ["--model", model, "--data.name", "shapes", "--data.test_size", "5", "--workers", "0"]


def broken(name: str, content: Callable[[bytes], bytes], message: str) -> Kind:
    """A weights file whose bytes are damaged."""

    def arguments(place: Place) -> list[Any]:
        whole = (place.shared / "run" / "weights.safetensors").read_bytes()
        return evaluate(place.write("w.safetensors", content(whole)))

    return Kind(
        name, "evaluate_classifier", arguments, f"HERE/w.safetensors: not a readable safetensors file ({message})"
    )


def every(state: State, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Changes all tensors of floating-point numbers."""
    state.update({name: change(t) for name, t in state.items() if t.is_floating_point()})


def record(name: str, tool: str, message: str, *, file: str = "run.json", content: Any) -> Kind:
    """A run folder with a bad file, given to a command that reads runs.

    Args:
        content: of the file; or, where it can be called, what changes the record.
    """

    def arguments(place: Place) -> list[Any]:
        run = place.here / "run"
        shutil.copytree(place.shared / "run", run)
        if callable(content):
            path = run / file
            old = json.loads(path.read_text()) if path.suffix == ".json" else None
            new = content(old) if old is not None else content(path)
            if new is not None:
                place.write(f"run/{file}", new)
        else:
            place.write(f"run/{file}", content)
        if tool == "pretrain":
            return [*PRETRAIN, "--output", run, "--resume"]
        return (
            [run, "--output", place.here / "out"]
            if tool == "record_run"
            else ["--run", run, "--output", place.here / "f.png"]
        )

    return Kind(name, tool, arguments, message)


def piped(tool: str) -> Kind:
    """A run whose run.json is a pipe."""

    def arguments(place: Place) -> list[Any]:
        (place.here / "run").mkdir()
        os.mkfifo(place.here / "run" / "run.json")
        return (
            [place.here / "run", "--output", place.here / "out"]
            if tool == "record_run"
            else ["--run", place.here / "run", "--output", place.here / "f.png"]
        )

    return Kind("a record that is a pipe", tool, arguments, "HERE/run/run.json: is no file: name ...")


def imported(name: str, content: bytes | Callable[[Place], Any], message: str, form: str = "torchvision") -> Kind:
    """A checkpoint from elsewhere that is refused."""

    def arguments(place: Place) -> list[Any]:
        source = content(place) if callable(content) else place.write("w.pth", content)
        return ["--format", form, "--input", source, "--arch", "resnet50", "--output", place.here / "out.safetensors"]

    return Kind(name, "import_weights", arguments, message)


DEEP = "[" * 10_000
RECORD = "HERE/run/run.json: "
UNBUILT = "its metadata name a network that can't be built: "
HEADER = "Error while deserializing header: "

KINDS = [
    weights(
        "weights that are not numbers",
        "conv1.weight holds values that are not finite numbers",
        lambda s: every(s, lambda t: t * math.nan),
    ),
    weights(
        "weights that 32 bits can't hold",
        "conv1.weight holds values that are not finite numbers",
        lambda s: every(s, lambda t: torch.full(t.shape, 1e300, dtype=torch.float64)),
    ),
    weights(
        "weights of 8 bits",
        "...weight holds torch.float8_e4m3fn: write it as one of 16 bits or more",
        lambda s: s.update({"conv1.weight": s["conv1.weight"].to(torch.float8_e4m3fn)}),
    ),
    weights(
        "complex weights",
        "conv1.weight holds torch.complex64, this network's torch.float32",
        lambda s: every(s, lambda t: t.to(torch.complex64)),
    ),
    weights(
        "a negative variance",
        "bn1.running_var holds a variance below 0",
        lambda s: s.update({"bn1.running_var": -s["bn1.running_var"] - 1}),
    ),
    weights("a tensor too few", "lacks fc.bias: the weights are of another architecture", lambda s: s.pop("fc.bias")),
    weights(
        "a tensor too many, its name with a terminal's codes",
        "holds x\\x1b[31m, this network does not: they are of another architecture",
        lambda s: s.update({"x\x1b[31m": torch.zeros(1)}),
    ),
    weights(
        "a tensor of another shape",
        "fc.weight has shape (3, 3), this network's has (6, 32): the weights are of another architecture",
        lambda s: s.update({"fc.weight": torch.zeros(3, 3)}),
    ),
    weights(
        "a million classes", "fc.weight has shape (6, 32), this network's has (1000000, 32): ...", classes=["x"] * 10**6
    ),
    weights(
        "a width of 1e9",
        f"{UNBUILT}width of resnet18 must be an integer from 1 to 256, not 1000000000",
        options={"width": 10**9},
    ),
    weights(
        "an option that is none",
        "its metadata name a network that can't be built: resnet18 has no option 'depth': it has ...",
        options={"depth": 5},
    ),
    weights(
        "a depth of 5,000 digits",
        "its metadata name a network that can't be built: no model 'cifar_resnet2...': choose from ...",
        architecture="cifar_resnet" + "2" * 5_000,
    ),
    weights(
        "a network with a terminal's codes",
        "its metadata name a network that can't be built: no model '\\x1b[31m': choose from ...",
        architecture="\x1b[31m",
    ),
    weights(
        "a picture of 2^63 pixels", "its metadata's input_size is not a whole number from 1 to 10000", input_size=2**63
    ),
    weights("a deviation of zero", "its metadata's mean or std holds a number that can't be", std=[0, 1, 1]),
    weights("a mean of texts", "its metadata's mean or std does not hold numbers", mean=["dark"] * 3),
    weights("10,000 levels of metadata", "its metadata can't be read (...)", texts={"mean": DEEP}),
    weights(
        "another version",
        "has no metadata of this project (architecture, classes, preprocessing)",
        texts={"format": "resnet-reproduction-2"},
    ),
    weights("weights of another task", "holds a poetry network, not a classifier", task="poetry"),
    broken("a header of 2^63 bytes", lambda b: (2**63).to_bytes(8, "little") + b[8:], f"{HEADER}header too large"),
    broken("weights cut off", lambda b: b[:-9], f"{HEADER}..."),
    broken("weights of seven bytes", lambda b: b[:7], f"{HEADER}header too small"),
    broken("a pickle for weights", lambda _: pickle.dumps(Trap()), f"{HEADER}..."),
    Kind(
        "a device for weights",
        "encode_features",
        lambda p: ["--model", "/dev/zero", "--data.name", "shapes", "--output", p.here / "out"],
        "/dev/zero: no such file or run folder",
    ),
    Kind(
        "a classifier for a detector",
        "detect",
        lambda p: ["--model", p.shared / "run", "--images", p.picture("a.png"), "--output", p.here / "out"],
        "SHARED/run: holds a classification network, not a detector: name a run of train_detector.py",
    ),
    Kind(
        "a detector for a localiser",
        "evaluate_localiser",
        lambda p: ["--model", p.shared / "detector", "--data.root", p.here],
        "...",
    ),
    record(
        "an empty record", "record_run", f"{RECORD}can't be read (...): name the folder of a finished run", content=""
    ),
    record(
        "10,000 levels of a record",
        "record_run",
        f"{RECORD}can't be read (...recursion...): name the folder of a finished run",
        content=DEEP,
    ),
    record(
        "10,000 levels of a record to go on with",
        "pretrain",
        f"{RECORD}not readable as JSON (...recursion...)...",
        content=DEEP,
    ),
    record(
        "10,000 levels in a line of metrics",
        "record_run",
        "HERE/run/metrics.jsonl: can't be read (...): name ...",
        file="metrics.jsonl",
        content=DEEP,
    ),
    record(
        "a record that is a list",
        "plot_curves",
        f"{RECORD}not the record of a run: name run folders or recorded runs",
        content=[],
    ),
    record(
        "a record without a seed",
        "record_run",
        f"{RECORD}can't be read (not the record of a run: no command, or no seed)...",
        content=lambda r: r | {"seed": "7"},
    ),
    record(
        "a state with a terminal's codes",
        "record_run",
        "HERE/run: its run is \\x1b[31mdone, not finished: wait for it, or go on with --resume",
        content=lambda r: r | {"status": "\x1b[31mdone"},
    ),
    record("a record in Latin-1", "record_run", f"{RECORD}can't be read (...)...", content=b'{"command": "\xe9"}'),
    record(
        "metrics cut in the middle",
        "record_run",
        "HERE/run/metrics.jsonl: can't be read (...)...",
        file="metrics.jsonl",
        content='{"step": 1, "spl',
    ),
    record(
        "metrics without errors",
        "plot_curves",
        "HERE/run: has logged no top1_error; only classifiers do",
        file="metrics.jsonl",
        content='{"step": 1, "split": "train", "top1_error": NaN}\n',
    ),
    record(
        "a model's name with a terminal's codes",
        "pretrain",
        "HERE/run: its run had model.name = \\x1b[31mred, now it is resnet18; set it back, ...",
        content=lambda r: r | {"config": r["config"] | {"model": r["config"]["model"] | {"name": "\x1b[31mred"}}},
    ),
    piped("record_run"),
    piped("plot_curves"),
    Kind(
        "a device for a recorded run",
        "plot_curves",
        lambda p: ["--run", "/dev/zero", "--output", p.here / "f.png"],
        "/dev/zero: is no file: name run folders or recorded runs",
    ),
    imported("a checkpoint with code", pickle.dumps(Trap()), "HERE/w.pth: ..."),
    imported("an empty checkpoint", b"", "HERE/w.pth: ..."),
    imported("a picture for a checkpoint", lambda p: p.picture("w.pth"), "HERE/w.pth: ..."),
    imported(
        "a text for a Caffe file",
        b"layer { name: 'conv1' }",
        "HERE/w.pth: not a .caffemodel, or a damaged one (...): get it again",
        "caffe",
    ),
    imported("a folder for a checkpoint", lambda p: p.here, "HERE: no such file"),
]
