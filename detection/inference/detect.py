"""Finding objects in the pictures of a data set."""

from collections.abc import Callable

from torch import Tensor

from backbones.data.loader import testing_batches
from backbones.engine.acceleration import Precision, autocast
from backbones.engine.distributed import World, gather_objects
from backbones.progress import progress_bar
from detection.data.annotations import DetectionDataset
from detection.data.samples import make_scaled_picture
from detection.inference.ensemble import Ensemble
from detection.structures import Detections, ScaledPicture


def detect_in_dataset(
    ensemble: Ensemble,
    dataset: DetectionDataset,
    *,
    world: World,
    precision: Precision = "fp32",
    workers: int = 0,
    proposals: Callable[[int], Tensor] | None = None,
) -> list[Detections]:
    """The detections in every picture, in the data set's order and its pixels, on the CPU; the same in every process.

    Each picture is looked at in one of the processes; the main one shows its own share's progress.

    Args:
        proposals: gives those of a picture, in the pixels of the ensemble's first view of it, in the place of its own.
    """

    views = ensemble.views

    def load(index: int) -> ScaledPicture:
        return make_scaled_picture(dataset, index, views)

    indices = range(world.rank, len(dataset), world.size)
    found: list[tuple[int, Detections]] = []
    bar = progress_bar(total=len(indices), unit="picture", description="detecting", stays=False, shown=world.is_main)
    with bar:
        for (picture,) in testing_batches(load, indices, batch_size=1, workers=workers, collate=list):
            given = None if proposals is None else proposals(picture.index)
            with autocast(precision, world.device):
                found.append((picture.index, detect_in_picture(ensemble, picture, given)))
            bar.update()
    everything: dict[int, Detections] = dict(pair for part in gather_objects(found) for pair in part)
    return [everything[index] for index in range(len(dataset))]


def detect_in_picture(ensemble: Ensemble, picture: ScaledPicture, proposals: Tensor | None = None) -> Detections:
    """The detections in one picture, in its original pixels, on the CPU.

    Args:
        picture: with the views that the ensemble asks for.
        proposals: see `Ensemble`.
    """
    found = ensemble(picture.images, proposals).to("cpu")
    _, seen_height, seen_width = picture.images[ensemble.views[0]].shape
    height, width = picture.original_size[0] / seen_height, picture.original_size[1] / seen_width
    return Detections(found.boxes * found.boxes.new_tensor([width, height, width, height]), found.scores, found.labels)
