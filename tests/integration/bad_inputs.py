"""What the tables of bad input are made of: a kind of it, and the place where it is tried."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commands import SMALL, pretrain
from detector_commands import train, write_backbone, write_coco, write_voc
from PIL import Image

from detection.data.shapes import shapes_for_detection


class Place:
    """A folder of one's own, and beside it what all kinds share and only read.

    Args:
        here: the folder.
        shared: {run, backbone.safetensors, detector, voc, coco}.
    """

    def __init__(self, here: Path, shared: Path):
        self.here, self.shared = here, shared

    def write(self, name: str, content: str | bytes | Any) -> Path:
        """A file here, of text, of bytes, or else of JSON."""
        path = self.here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def picture(self, name: str, kind: str = "PNG") -> Path:
        """A good picture of 40x36 pixels here."""
        path = self.here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 36), (200, 30, 30)).save(path, kind)
        return path


@dataclass(frozen=True)
class Kind:
    """A kind of bad input.

    Args:
        name: what it is, in a few words.
        tool: the command that it is given to (of `tools/`).
        arguments: makes the input and gives the arguments.
        message: what the command says after `error: `; `HERE` and `SHARED` stand for the folders, `...` for some text.
        code: the exit code.
    """

    name: str
    tool: str
    arguments: Callable[[Place], list[Any]]
    message: str
    code: int = 2


def write_shared(root: Path) -> Path:
    """What the kinds share."""
    pretrain(root / "run", "--train.steps", "2")
    write_backbone(root / "backbone.safetensors", width=4)
    train(root / "detector", root / "backbone.safetensors", "--train.steps", "1")
    write_voc(root / "voc" / "VOC2007", "test", shapes_for_detection("val", 3, 64))
    write_coco(root / "coco", "val", shapes_for_detection("val", 3, 64))
    return root


PRETRAIN = [*SMALL, "--train.steps", "2"]
