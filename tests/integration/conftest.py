"""What the tests of whole commands share."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Runs in this process then give the same bits as those in a process of their own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """{train,val}/{ape,bee}/, three pictures each."""
    root = tmp_path / "pictures"
    rng = np.random.default_rng(0)
    for folder in ("train/ape", "train/bee", "val/ape", "val/bee"):
        (root / folder).mkdir(parents=True)
        for number in range(3):
            pixels = rng.integers(0, 256, (36, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{number}.png")
    return root
