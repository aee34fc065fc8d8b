"""Finding objects in the pictures of a data set."""

from collections.abc import Callable, Iterable, Iterator

from torch import Tensor

from backbones.data.loader import testing_batches
from backbones.engine.acceleration import Precision, autocast
from backbones.engine.distributed import World, gather_objects
from backbones.engine.fetch import fetch
from backbones.engine.prefetch import prefetch
from backbones.progress import progress_bar
from detection.data.annotations import DetectionDataset
from detection.data.samples import make_scaled_picture
from detection.inference.ensemble import Ensemble
from detection.structures import Detections, ScaledPicture, View


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

    Each picture is looked at in one of the processes; the main one shows its own share's progress. A GPU is given the
    next picture before the detections of the last are back.

    Args:
        proposals: gives those of a picture, in the pixels of the ensemble's first view of it, in the place of its own.
    """

    views, device = ensemble.views, world.device

    def load(index: int) -> ScaledPicture:
        return make_scaled_picture(dataset, index, views)

    def look(batches: Iterable[list[ScaledPicture]]) -> Iterator[tuple[ScaledPicture, tuple[Tensor, ...]]]:
        for (picture,) in batches:
            given = None if proposals is None else proposals(picture.index)
            with autocast(precision, device):
                seen = ensemble(picture.images, given)
            yield picture, (seen.boxes, seen.scores, seen.labels)

    indices = range(world.rank, len(dataset), world.size)
    batches = testing_batches(
        load, indices, batch_size=1, workers=workers, collate=list, pin_memory=device.type == "cuda"
    )
    found: list[tuple[int, Detections]] = []
    bar = progress_bar(total=len(indices), unit="picture", description="detecting", stays=False, shown=world.is_main)
    with bar:
        for picture, tensors in fetch(look(prefetch(batches, device)), device):
            found.append((picture.index, _in_the_file(Detections(*tensors), picture, views[0])))
            bar.update()
    everything: dict[int, Detections] = dict(pair for part in gather_objects(found) for pair in part)
    return [everything[index] for index in range(len(dataset))]


def detect_in_picture(ensemble: Ensemble, picture: ScaledPicture, proposals: Tensor | None = None) -> Detections:
    """The detections in one picture, in its original pixels, on the CPU.

    Args:
        picture: with the views that the ensemble asks for.
        proposals: see `Ensemble`.
    """
    return _in_the_file(ensemble(picture.images, proposals).to("cpu"), picture, ensemble.views[0])


def _in_the_file(found: Detections, picture: ScaledPicture, view: View) -> Detections:
    """Detections in the pixels of a view, in those of the picture as it was."""
    _, seen_height, seen_width = picture.images[view].shape
    height, width = picture.original_size[0] / seen_height, picture.original_size[1] / seen_width
    return Detections(found.boxes * found.boxes.new_tensor([width, height, width, height]), found.scores, found.labels)
