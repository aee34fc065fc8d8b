"""What all figures share: colours, kinds of files, writing them."""

import warnings
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from backbones.engine.checkpoint import write_atomically
from backbones.engine.outputs import check_writable
from backbones.errors import ConfigError, RunFolderError
from backbones.text import printable

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
"""Okabe and Ito's, which the colour-blind can tell apart, without the yellow that is hard to see on white."""
ENDINGS = (".png", ".svg", ".pdf")


def check_figure(path: str) -> Path:
    """Finds out before the long work whether a figure can be written there.

    Raises:
        ConfigError: the ending names no kind of figure.
        RunFolderError: the folder can't be used.
    """
    if Path(path).suffix not in ENDINGS:
        raise ConfigError(f"{path}: the ending of a figure's file must be one of {', '.join(ENDINGS)}")
    check_writable(Path(path))
    return Path(path)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, whose parts keep out of each other's way."""
    return Figure(figsize=(width, height), layout="constrained")


def literal(text: str) -> str:
    """A text that shows as it is: names of files may hold what matplotlib takes for formulas and hidden labels."""
    escaped = printable(text).replace("$", r"\$")
    return f" {escaped}" if text.startswith("_") else escaped


def clear_frame(axes: Axes) -> None:
    """Leaves the left and lower lines of the frame, and a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure, whole or not at all, in the format that the ending names.

    Raises:
        RunFolderError: the file can't be written.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph")  # of names in scripts that the font lacks: boxes
            write_atomically(path, lambda temporary: figure.savefig(temporary, format=path.suffix[1:], dpi=150))
    except OSError as error:
        raise RunFolderError(f"{path}: can't be written ({error.strerror})") from error
