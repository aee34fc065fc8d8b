"""Running a localiser over the pictures of a data set (Appendix C): one box for each class asked for.

"center" shows the central crop, and the answer is the best-scoring box. "dense" shows the whole picture at several
scales, and its mirror images, to the fully convolutional network; the boxes of all views vote.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from backbones.data.loader import testing_batches
from backbones.engine.acceleration import Precision, autocast
from backbones.engine.distributed import World, gather_objects
from backbones.errors import DataError
from backbones.progress import progress_bar
from detection.data.annotations import DetectionDataset
from detection.localisation.merging import best_box, propose, vote
from detection.localisation.model import Localiser
from detection.localisation.regions import RegionNetwork, RegionOptions
from detection.localisation.views import View, center_view, whole_views

Protocol = Literal["center", "dense"]

MOST_BOXES = 1000
"""The best boxes of a view for a class that go into voting or proposals."""


@dataclass(frozen=True)
class Showing:
    """How pictures are shown to a network.

    Args:
        protocol: see above.
        crop_size: side of the central crop, in pixels.
        shorter: the picture's shorter side before that is cut.
        scales: shorter sides of the whole picture.
        mirror: whether the whole picture's mirror image is shown too.
    """

    protocol: Protocol
    crop_size: int
    shorter: int
    scales: Sequence[int]
    mirror: bool = True

    def views(self, picture: Tensor) -> list[View]:
        """The views of a picture (3, H, W) uint8."""
        if self.protocol == "center":
            return center_view(picture, self.crop_size, self.shorter)
        return whole_views(picture, self.scales, mirror=self.mirror)


@dataclass
class Shown:
    """One picture (3, H, W) uint8 of a data set, at the place `index`, and its views."""

    index: int
    picture: Tensor
    views: list[View]


@dataclass
class Located:
    """What was found in N pictures for P classes of each: scores (N, P), boxes (N, P, 4) in the pictures' pixels."""

    scores: Tensor
    boxes: Tensor


@dataclass(frozen=True)
class Running:
    """How networks are run.

    Args:
        world: the processes that share the pictures.
        precision: of the network's arithmetic.
        workers: processes that load pictures, for each process.
        batch_size: pictures at a time.
    """

    world: World
    precision: Precision = "fp32"
    workers: int = 0
    batch_size: int = 16


@dataclass(frozen=True)
class Rescoring:
    """The R-CNN step.

    Args:
        network: in eval mode.
        options: which regions are shown to it.
    """

    network: RegionNetwork
    options: RegionOptions


def localise(
    localiser: Localiser,
    dataset: DetectionDataset,
    labels: Tensor,
    showing: Showing,
    running: Running,
    rescoring: Rescoring | None = None,
) -> dict[str, Located]:
    """The box of each class that is asked for, in every picture; the same in every process, on the CPU.

    Args:
        localiser: in eval mode.
        labels: (N, P), the classes asked for in each picture, in 1..K.
        rescoring: gives the localiser's proposals new scores and boxes.

    Returns:
        By the name of the protocol; with `rescoring` also what came of it, by that name and "_rcnn".
    """
    choose = best_box if showing.protocol == "center" else vote
    ways = [str(showing.protocol), *([f"{showing.protocol}_rcnn"] if rescoring else [])]
    found: dict[str, list[tuple[int, Tensor, Tensor]]] = {way: [] for way in ways}
    for shown, scores, boxes in candidates(localiser, dataset, labels, showing, running):
        chosen = [[choose(*each) for each in zip(scores, boxes, strict=True)]]
        if rescoring:
            with autocast(running.precision, running.world.device):
                chosen.append(_rescore(rescoring, shown, labels[shown.index], scores, boxes))
        for way, answers in zip(ways, chosen, strict=True):
            best_scores, best_boxes = (torch.stack(each).cpu() for each in zip(*answers, strict=True))
            found[way].append((shown.index, best_scores, best_boxes))
    return {way: gather(each, len(dataset)) for way, each in found.items()}


def _rescore(
    rescoring: Rescoring, shown: Shown, labels: Tensor, scores: Tensor, boxes: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """The score () and the box (4,) of each class (P,) from regions: they vote. A class asked for twice goes in once.

    Args:
        scores, boxes: see `candidates`.
    """
    options, places = rescoring.options, {int(label): place for place, label in enumerate(labels)}
    proposals = [
        propose(scores[place], boxes[place], shown.picture, nms_iou=options.nms_iou, most=options.proposals)
        for place in places.values()
    ]
    counts = [len(each) for each in proposals]
    asked = torch.tensor(list(places)).repeat_interleave(torch.tensor(counts))
    new = rescoring.network.rescore(shown.picture, torch.cat(proposals), asked, options.size)
    answers = dict(zip(places, map(vote, *(each.split(counts) for each in new)), strict=True))
    return [answers[int(label)] for label in labels]


def gather(found: list[tuple[int, Tensor, Tensor]], count: int) -> Located:
    """What all processes found, in the order of the data set's `count` pictures."""
    everything = {index: rest for part in gather_objects(found) for index, *rest in part}
    scores, boxes = (torch.stack([everything[i][k].float() for i in range(count)]) for k in (0, 1))
    return Located(scores, boxes)


@torch.inference_mode()
def candidates(
    localiser: Localiser,
    dataset: DetectionDataset,
    labels: Tensor,
    showing: Showing,
    running: Running,
    *,
    description: str = "localising",
) -> Iterator[tuple[Shown, Tensor, Tensor]]:
    """This process's share of the pictures, with scores (P, n) and boxes (P, n, 4) of each, in its own pixels.

    Args:
        labels: see `localise`.
        description: what the progress bar says is being done.
    """
    world = running.world

    def load(index: int) -> Shown:
        return show(dataset, index, showing)

    indices = range(world.rank, len(dataset), world.size)
    bar = progress_bar(total=len(indices), unit="picture", description=description, stays=False, shown=world.is_main)
    with bar:
        for batch in testing_batches(
            load, indices, batch_size=running.batch_size, workers=running.workers, collate=list
        ):
            with autocast(running.precision, world.device):
                found = _candidates(localiser, batch, labels)
            for shown, (scores, boxes) in zip(batch, found, strict=True):
                yield shown, scores, boxes
            bar.update(len(batch))


def show(dataset: DetectionDataset, index: int, showing: Showing) -> Shown:
    """A picture of a data set and its views.

    Raises:
        DataError: it can't be read, has another size than its annotation says, or is too long and narrow.
    """
    name = f"picture {dataset.annotations.image_ids[index]}"
    picture = dataset.load_image(index)
    height, width = dataset.annotations.sizes[index]
    if tuple(picture.shape[1:]) != (height, width):
        raise DataError(
            f"{name}: is {picture.shape[2]}x{picture.shape[1]}, its annotation says {width}x{height}: "
            "mend the annotation"
        )
    try:
        return Shown(index, picture, showing.views(picture))
    except DataError as error:
        raise error.about(name) from error


def _candidates(localiser: Localiser, batch: Sequence[Shown], labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Scores (P, n) and boxes (P, n, 4) of each picture; views of one size go through the network together."""
    groups: dict[tuple[int, ...], list[tuple[int, View]]] = {}
    for place, shown in enumerate(batch):
        for view in shown.views:
            groups.setdefault(tuple(view.image.shape), []).append((place, view))
    found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in batch]
    for group in groups.values():
        images = torch.stack([view.image for _, view in group])
        wanted = torch.stack([labels[batch[place].index] for place, _ in group])
        scores, boxes = localiser.locate(images, wanted)
        scores, index = scores.topk(min(MOST_BOXES, scores.shape[2]), dim=2)
        boxes = boxes.take_along_dim(index[..., None], dim=2)
        for (place, view), own_scores, own_boxes in zip(group, scores, boxes, strict=True):
            found[place].append((own_scores, view.to_picture(own_boxes)))
    return [(torch.cat([s for s, _ in own], dim=1), torch.cat([b for _, b in own], dim=1)) for own in found]
