"""Running a detector over a data set: each picture once, boxes in the pixels of the file."""

import pytest
import torch
from torch import Tensor

from backbones.engine.distributed import World
from detection.data.annotations import Annotations, DetectionDataset
from detection.data.samples import scale_picture
from detection.inference import detect
from detection.inference.detect import detect_in_dataset, detect_in_picture
from detection.structures import Detections

ALONE = World(0, 1, torch.device("cpu"))
SIZES = [(40, 60), (60, 40), (25, 80), (1, 90), (33, 33)]


class CornerEnsemble:
    """Finds one object in each picture: all of it. Counts the pictures."""

    views = [(20, 30), (10, 15)]  # noqa: RUF012

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []
        self.given: list[Tensor | None] = []

    def __call__(self, images: dict[tuple[int, int], Tensor], proposals: Tensor | None) -> Detections:
        image, half = (images[view] for view in self.views)
        assert [max(1, round(side / 2)) for side in image.shape[1:]] == pytest.approx(half.shape[1:], abs=1)
        self.seen.append(tuple(image.shape[1:]))
        self.given.append(proposals)
        return Detections(
            torch.tensor([[0.0, 0, image.shape[2], image.shape[1]]]),
            image[:1, 0, 0] / 255,
            torch.tensor([1]),
        )


def dataset() -> DetectionDataset:
    """Pictures of all sizes; each is of one grey, by which its detection can be told."""
    annotations = Annotations.from_objects(
        class_names=["thing"], image_ids=[f"p{i}" for i in range(5)], sizes=SIZES, images=[], boxes=[], labels=[]
    )
    return DetectionDataset(annotations, lambda i: torch.full((3, *SIZES[i]), 10 * i, dtype=torch.uint8))


@pytest.mark.parametrize("workers", [0, 1])
def test_boxes_are_in_the_pixels_of_the_file(workers: int) -> None:
    found = detect_in_dataset(CornerEnsemble(), dataset(), world=ALONE, workers=workers)
    assert [round(255 * float(each.scores)) for each in found] == [0, 10, 20, 30, 40]
    for (height, width), each in zip(SIZES, found, strict=True):
        assert each.boxes.tolist() == [[0, 0, pytest.approx(width), pytest.approx(height)]]


def test_each_picture_is_seen_once_by_one_of_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[tuple[int, ...]]] = []
    parts: list = []

    def run(rank: int) -> list[Detections]:
        ensemble = CornerEnsemble()
        world = World(rank, 2, torch.device("cpu"))
        found = detect_in_dataset(ensemble, dataset(), world=world)
        seen.append(ensemble.seen)
        return found

    monkeypatch.setattr(detect, "gather_objects", lambda own: parts.append(own) or [[(i, None) for i in range(5)]])
    run(0)
    run(1)
    assert [len(each) for each in seen] == [3, 2]
    assert sorted(index for part in parts for index, _ in part) == [0, 1, 2, 3, 4]
    monkeypatch.setattr(detect, "gather_objects", lambda own: parts)
    together = run(0)
    alone = detect_in_dataset(CornerEnsemble(), dataset(), world=ALONE)
    assert [each.scores.tolist() for each in together] == [each.scores.tolist() for each in alone]


@pytest.mark.parametrize(("rank", "size", "seen"), [(0, 9, 1), (7, 9, 0)])
def test_more_processes_than_pictures(
    rank: int, size: int, seen: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Some have nothing to do; the main one shows how far it is, and only it."""
    everything = [[(index, index) for index in range(5)]]
    monkeypatch.setattr(detect, "gather_objects", lambda own: everything if len(own) == seen else None)
    ensemble = CornerEnsemble()
    world = World(rank, size, torch.device("cpu"))
    assert detect_in_dataset(ensemble, dataset(), world=world) == [0, 1, 2, 3, 4]
    assert len(ensemble.seen) == seen
    bar = capsys.readouterr().err
    assert ("detecting" in bar and "1/1" in bar) if rank == 0 else not bar


def test_a_side_that_rounding_changed_is_taken_as_it_is() -> None:
    picture = scale_picture(torch.zeros(3, 4, 1000, dtype=torch.uint8), 0, CornerEnsemble.views)
    assert picture.images[20, 30].shape == (3, 1, 30)  # 0.12 pixels high by the scale alone
    assert detect_in_picture(CornerEnsemble(), picture).boxes.tolist() == [[0, 0, pytest.approx(1000), 4]]


def test_each_picture_is_given_its_own_proposals() -> None:
    ensemble = CornerEnsemble()
    detect_in_dataset(ensemble, dataset(), world=ALONE, proposals=lambda index: torch.full((1, 4), float(index)))
    assert [float(each[0, 0]) for each in ensemble.given if each is not None] == [0, 1, 2, 3, 4]
