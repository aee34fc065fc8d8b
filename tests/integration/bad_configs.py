"""Bad input of the first kind: configs and options."""

import os
from typing import Any

from bad_inputs import Kind, Place


def config(name: str, content: str | bytes, message: str) -> Kind:
    """A config file that `pretrain` refuses."""

    def arguments(place: Place) -> list[Any]:
        return ["--config", place.write("c.yaml", content), "--output", place.here / "out"]

    return Kind(name, "pretrain", arguments, message)


def config_path(name: str, make: Any, message: str) -> Kind:
    """Something in the place of a config file."""
    return Kind(name, "pretrain", lambda place: ["--config", make(place), "--output", place.here / "out"], message)


def pipe(place: Place) -> str:
    """A pipe that nobody writes into."""
    os.mkfifo(place.here / "pipe")
    return str(place.here / "pipe")


def loop(place: Place) -> str:
    """Two links that lead to each other."""
    os.symlink(place.here / "one", place.here / "two")
    os.symlink(place.here / "two", place.here / "one")
    return str(place.here / "one")


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)
FILE = "--config HERE/c.yaml"
NO_FILE = "is no file: name a YAML file of options"

KINDS = [
    config(
        "a key twice", "seed: 1\nseed: 2\n", f"{FILE}, line 2: seed is given twice (first in line 1)...: remove one"
    ),
    config("a key twice in a group", "train: {steps: 1, steps: 2}\n", f"{FILE}, line 1: steps is given twice ..."),
    config("a tab", "train:\n\tsteps: 1\n", f"{FILE}: not YAML (line 2: found character '\\t'...): mend it"),
    config("Latin-1", b"model: {name: r\xe9snet}\n", f"{FILE}: is not in UTF-8 (...): save it as UTF-8"),
    config("UTF-16", "seed: 1\n".encode("utf-16"), f"{FILE}: is not in UTF-8 (...): save it as UTF-8"),
    config("zero bytes", b"seed: 1\0\n", f"{FILE}: not YAML (unacceptable character #x0000...): mend it"),
    config("an escaped zero", 'output: "a\\0b"\n', f"{FILE}, line 1: a value holds a NUL character: remove it"),
    config("a YAML bomb", BOMB, f"{FILE}: stands for more than 100,000 values when its aliases are followed: it ..."),
    config(
        "an alias of itself",
        "model: &a\n  options: *a\n",
        f"{FILE}: *a stands within what it stands for: it should be groups of options",
    ),
    config(
        "10,000 levels of YAML",
        "model: " + "[" * 10_000,
        f"{FILE}: more than 50 levels of lists and names within each other: it ...",
    ),
    config(
        "a YAML tag with code", "model: !!python/object/apply:os.mkdir [sprung]\n", f"{FILE}: ...python/object/apply..."
    ),
    config("nothing", "# only a remark\n", f"{FILE}: holds no options: write lines such as 'seed: 1'"),
    config("a YAML list", "- seed: 1\n", f"{FILE}: holds no options: write lines such as 'seed: 1'"),
    config("two documents", "seed: 1\n---\nseed: 2\n", f"{FILE}: not YAML (line 2: ...another document): mend it"),
    config("a number as a key", "1: 2\n", f"{FILE}, line 1: an option's name must be a text: quote or mend it"),
    config(
        "null for a number",
        "train: {steps: null}\n",
        "train.steps is null: give a value, or leave it out for the default",
    ),
    config("null for a group", "train: null\n", f"{FILE}: train is a group of options, not None"),
    config(
        "a list for a number", "optimizer: {lr: [0.1]}\n", f'{FILE}: Parser key "optimizer.lr": Expected a ...float...'
    ),
    config("infinity for a count", "train: {steps: .inf}\n", f'{FILE}: Parser key "train.steps": ...int...: inf'),
    config("a number of 5,000 digits", f"seed: {'7' * 5000}\n", f"{FILE}: ...4300 digits..."),
    config("a learning rate of 1e400", "optimizer: {lr: 1.0e+400}\n", "optimizer.lr inf: give a number of 0 or more"),
    config("a terminal's codes in a key", '"tr\\e[31main": 1\n', "Option 'tr\\x1b[31main' is not accepted"),
    config("a config that names itself", "config: c.yaml\n", f"{FILE}: Config file loop detected: ..."),
    config(
        "a config of 2 MB",
        "# " + "x" * 2_000_000,
        "--config HERE/c.yaml: larger than 1,048,576 bytes...: name a YAML file...",
    ),
    config_path("a pipe as the config", pipe, f"--config HERE/pipe: {NO_FILE}"),
    config_path("/dev/zero as the config", lambda _: "/dev/zero", f"--config /dev/zero: {NO_FILE}"),
    config_path("a folder as the config", lambda place: place.here, f"--config HERE: {NO_FILE}"),
    config_path(
        "links in a circle",
        loop,
        "--config HERE/one: can't be read (...symbolic links...): name a YAML file of options",
    ),
    config_path(
        "a name of 300 letters", lambda _: "x" * 300, "--config xxx...: can't be read (...name too long...): name ..."
    ),
    Kind(
        "an empty name",
        "evaluate_classifier",
        lambda _: ["--model", "x", "--data.name", "shapes", "--output", ""],
        "--output is empty: name a file or folder",
    ),
    Kind(
        "not a number as a score",
        "detect",
        lambda _: ["--model", "x", "--images", "x", "--output", "x", "--min_score", "nan"],
        'Parser key "min_score": Expected a ...float...: nan',
    ),
    Kind(
        "a memory of 1e30 pictures",
        "complexity",
        lambda _: ["resnet18", "--memory", 10**30],
        f"memory must be of 1 to 1000000 pictures, not {10**30}",
    ),
    Kind(
        "a picture of 1e30 pixels",
        "complexity",
        lambda _: ["resnet18", "--input_size", 10**30],
        f"input_size must be from 1 to 10000, not {10**30}",
    ),
    Kind(
        "an even window",
        "plot_curves",
        lambda p: ["--run", p.shared / "run", "--output", p.here / "f.png", "--smoothing", "2"],
        "smoothing 2: give an odd number from 1 to 1001",
    ),
    Kind(
        "a figure of no known kind",
        "signal_propagation",
        lambda p: ["--figure", p.here / "f.bmp"],
        "HERE/f.bmp: the ending of a figure's file must be one of .png, .svg, .pdf",
    ),
    Kind(
        "no stage of the network",
        "show_features",
        lambda p: [
            "--model",
            p.shared / "run",
            "--data.name",
            "shapes",
            "--output",
            p.here / "out",
            "--stages",
            "conv9",
        ],
        "stages: no stage 'conv9': the network has conv1, conv2, conv3, conv4, conv5",
    ),
    Kind("a part that is none", "benchmark", lambda _: ["speed"], 'Parser key "parts" element 1: ...speed'),
    Kind(
        "a table that is none",
        "reproduce",
        lambda p: ["table99", "--root", p.here],
        "table99: no table or figure of the file; it has table6, ...",
    ),
    Kind(
        "options that do not parse",
        "reproduce",
        lambda p: ["table6", "--root", p.here, "--set", "{lr: ["],
        "set {lr: [: give options with their values as '{precision: bf16}'",
    ),
    Kind(
        "a seed twice",
        "reproduce",
        lambda p: ["table6", "--root", p.here, "--seeds", "0", "0"],
        "seeds 0 0: give different numbers of 0 or more",
    ),
    Kind(
        "no pictures to respond to",
        "layer_responses",
        lambda p: ["--model", p.shared / "run", "--count", "0"],
        "count 0: give 1 or more",
    ),
    Kind(
        "no command of prepare_data",
        "prepare_data",
        lambda _: ["unpack"],
        "'unpack' is no command: give ... first (or --help)",
    ),
]
