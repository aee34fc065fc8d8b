"""Proposals of a whole data set: stored and read back, and how many objects they cover."""

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backbones.engine.distributed import World
from backbones.errors import DataError, RunFolderError
from detection.data.annotations import Annotations, DetectionDataset
from detection.data.proposals import ProposalWriter, StoredProposals, create_proposals
from detection.data.samples import make_sample
from detection.inference import propose
from detection.inference.propose import measure_recall, store_proposals
from detection.inference.viewing import Viewing
from detection.models import RPNOptions

WORLD = World(0, 1, torch.device("cpu"))
VIEWING: Viewing = {"shorter": 100, "longest": 200, "world": WORLD, "precision": "fp32", "workers": 0}


class FixedRPN:
    """Proposes the same boxes in every picture: those of testing are the first of those of training."""

    def __init__(self, boxes: list[list[float]], few: int) -> None:
        self.boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        self.rpn = self
        self.options = RPNOptions(post_nms_train=5, post_nms_test=few)

    def propose(self, image: torch.Tensor, *, to_train: bool) -> torch.Tensor:
        return self.boxes if to_train else self.boxes[: self.options.post_nms_test]


def dataset(boxes: list[list[float]], ignore: list[bool]) -> DetectionDataset:
    """Two pictures of 200x100, all objects in the first."""
    annotations = Annotations.from_objects(
        class_names=["thing"],
        image_ids=[1, 2],
        sizes=[(100, 200)] * 2,
        images=[0] * len(boxes),
        boxes=boxes,
        labels=[1] * len(boxes),
        ignore=ignore,
    )
    return DetectionDataset(annotations, lambda index: torch.zeros(3, 100, 200, dtype=torch.uint8))


def test_stored_proposals_are_those_of_the_network(tmp_path: Path) -> None:
    boxes = [[0, 0, 10, 10], [5, 5, 50, 60], [20.25, 30.5, 90, 99]]
    pictures = dataset([], [])
    store_proposals(FixedRPN(boxes, few=2), pictures, tmp_path / "train.npy", to_train=True, **VIEWING)
    store_proposals(FixedRPN(boxes, few=2), pictures, tmp_path / "test.npy", to_train=False, **VIEWING)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test.npy", "train.npy"]  # and no temporary file
    for index in range(2):
        assert StoredProposals(tmp_path / "train.npy", 2)(index).tolist() == boxes
        assert StoredProposals(tmp_path / "test.npy", 2)(index).tolist() == boxes[:2]
    assert np.load(tmp_path / "train.npy").shape == (2, 5, 4)


def test_files_that_are_none_are_named(tmp_path: Path) -> None:
    create_proposals(tmp_path / "two.npy", 2, 5)
    writer = ProposalWriter(tmp_path / "two.npy")
    for index in range(2):
        writer.write(index, torch.zeros(0, 4))
    writer.close()
    assert StoredProposals(tmp_path / "two.npy", 2)(1).shape == (0, 4)
    with pytest.raises(DataError, match=r"two.npy.*of 3 pictures"):
        StoredProposals(tmp_path / "two.npy", 3)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "two.npy").read_bytes()[:150])
    np.save(tmp_path / "code.npy", np.array([{}]), allow_pickle=True)
    for name in ("cut.npy", "code.npy"):
        with pytest.raises(DataError, match=name):
            StoredProposals(tmp_path / name, 2)


def test_a_full_disk_ends_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FullDisk(ProposalWriter):
        def write(self, index: int, boxes: torch.Tensor) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(propose, "ProposalWriter", FullDisk)
    with pytest.raises(RunFolderError, match=r"train.npy: can't be written \(No space left .* --resume"):
        store_proposals(FixedRPN([], few=2), dataset([], []), tmp_path / "train.npy", to_train=True, **VIEWING)
    assert not list(tmp_path.iterdir())


def test_proposals_are_mirrored_with_their_picture() -> None:
    pictures, boxes = dataset([[10, 20, 50, 60]], [False]), torch.tensor([[10.0, 20, 50, 60], [0, 0, 200, 100]])
    seen = set()
    for seed in range(12):
        sample = make_sample(pictures, 0, shorter=100, longest=200, flip=True, seed=seed, proposals=boxes)
        assert sample.proposals is not None
        assert torch.equal(sample.proposals[0], sample.target.boxes[0])
        assert sample.proposals[1].tolist() == [0, 0, 200, 100]
        seen.add(tuple(sample.proposals[0].tolist()))
    assert seen == {(10, 20, 50, 60), (150, 20, 190, 60)}


def test_recall_in_closed_form() -> None:
    objects = [[0, 0, 40, 40], [100, 0, 140, 40], [0, 60, 40, 100], [150, 50, 199, 99]]
    # IoU with the objects: 1; 30 x 40 of 40 x 40, 0.75; 22 x 40, 0.55; the last one, ignored, has none.
    proposals = [[0, 0, 40, 40], [100, 0, 130, 40], [0, 60, 22, 100]]
    pictures = dataset(objects, [False, False, False, True])
    assert measure_recall(FixedRPN(proposals, few=3), pictures, **VIEWING) == {
        "recall50": 100,
        "recall70": pytest.approx(200 / 3),
        # Found at 0.5 and 0.55: all three; up to 0.75: two; above: one.
        "average_recall": pytest.approx(100 * (2 * 3 + 4 * 2 + 4 * 1) / 3 / 10),
    }
    assert measure_recall(FixedRPN(proposals, few=1), pictures, **VIEWING)["recall50"] == pytest.approx(100 / 3)
    nothing = measure_recall(FixedRPN(proposals, few=3), dataset(objects[:1], [True]), **VIEWING)
    assert nothing == {"recall50": None, "recall70": None, "average_recall": None}


def test_a_gpu_gets_the_next_picture_before_the_proposals_in_the_last_are_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    class Detector(FixedRPN):
        def propose(self, image: torch.Tensor, *, to_train: bool) -> torch.Tensor:
            events.append("propose")
            return super().propose(image, to_train=to_train)

    def one_behind(results: Iterable[Any], device: torch.device) -> Iterator[Any]:
        """As `fetch` on a GPU."""
        first, second = results
        yield from (first, second)

    class Writer(ProposalWriter):
        def write(self, index: int, boxes: torch.Tensor) -> None:
            events.append(f"write {index}")
            super().write(index, boxes)

    monkeypatch.setattr(propose, "fetch", one_behind)
    monkeypatch.setattr(propose, "ProposalWriter", Writer)
    detector = Detector([[0, 0, 10, 10]], few=1)
    store_proposals(detector, dataset([], []), tmp_path / "test.npy", to_train=False, **VIEWING)
    assert events == ["propose", "propose", "write 0", "write 1"]
