"""Small class folders, and shards made of them."""

from pathlib import Path

import numpy as np
from PIL import Image

from backbones.data.folder import read_folder
from backbones.data.shards.index import ShardIndex
from backbones.data.shards.packing import pack


def make_folder(root: Path, split: str = "train", each: int = 7) -> Path:
    """<root>/<split>/{ape,b.bee,cow}/, pictures of noise as JPEG and PNG with all kinds of names."""
    rng = np.random.default_rng(len(split))
    for name in ("ape", "b.bee", "cow"):
        (root / split / name).mkdir(parents=True)
        for number in range(each):
            file = root / split / name / (f"{number}.x.JPEG" if number % 2 else f"é {number}.png")
            Image.fromarray(rng.integers(0, 256, (10, 9 + number, 3), dtype=np.uint8)).save(file)
    return root


def make_shards(tmp_path: Path, split: str = "train", *, shard_size: int = 2500, each: int = 7) -> ShardIndex:
    """Shards in <tmp_path>/shards of class folders in <tmp_path>/folder."""
    folder = make_folder(tmp_path / "folder", split, each) / split
    output = tmp_path / "shards" / split
    return pack(read_folder(tmp_path / "folder", split), folder, output, shard_size=shard_size, seed=3)
