"""The command `show_features`: pictures of what low, middle and high stages of a trained network respond to."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from backbones.analysis.feature_figures import Tiles, draw_filters, draw_tiles, mosaic
from backbones.analysis.features import TopResponses, responding_channels, stage_maps, top_responses
from backbones.analysis.figures import check_figure, save_figure
from backbones.analysis.receptive_field import ReceptiveField, stage_fields
from backbones.analysis.samples import evenly_spaced, view_loader
from backbones.cli import run_command
from backbones.config import ClassificationData
from backbones.data.loader import testing_batches
from backbones.data.readers import read_split
from backbones.engine.distributed import join_world
from backbones.errors import CheckpointError, ConfigError
from backbones.models.stages import StagedNetwork
from backbones.progress import progress_bar
from backbones.scores import normalize
from backbones.weights import WeightsMetadata, load_classifier

_KINDS = ("filters", "activations", "top_patches")
View = Callable[[int], np.ndarray]


def show_features(
    model: str,
    data: ClassificationData,
    output: str,
    stages: list[str] = [],  # noqa: B006 (read by the command line, never changed)
    channels: int = 8,
    patches: int = 9,
    examples: int = 3,
    pictures: int = 1000,
    batch_size: int = 32,
    workers: int = 4,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Shows what the stages of a trained classifier respond to, from edges to objects: three PNG files.

    filters.png: conv1's filters as colours. activations.png: maps of some channels for a few pictures. top_patches.png:
    the parts of pictures that some channels respond to most strongly, each from another picture; a part is exactly what
    the response depends on. Example: python tools/show_features.py --model runs/resnet50 --data.root imagenet
    --output features

    Args:
        model: a run folder or a weights.safetensors file.
        data: the pictures; only name, root, test_split and test_size count.
        output: the folder for the files.
        stages: which stages to show; conv2 to conv5 by default (conv1 to conv4 of CIFAR networks).
        channels: how many of each stage, evenly spaced among those that respond to any picture.
        patches: how many of each channel.
        examples: pictures whose activations are shown.
        pictures: how many to look through for top patches, spread over the data set.
        batch_size: pictures at a time.
        workers: data-loading processes.
        device: auto takes a GPU where there is one.
    """
    for name, value in [("channels", channels), ("patches", patches), ("examples", examples), ("pictures", pictures),
                        ("batch_size", batch_size)]:  # fmt: skip
        if value < 1:
            raise ConfigError(f"{name} {value}: give 1 or more")
    if workers < 0:
        raise ConfigError(f"workers {workers}: give 0 or more")
    if max(channels, examples) > 32 or patches > 100:
        raise ConfigError("give at most 32 channels and examples and 100 patches: a figure has no room for more")
    files = {kind: check_figure(str(Path(output) / f"{kind}.png")) for kind in _KINDS}
    network, metadata = load_classifier(model)
    if metadata.color_order != "RGB":
        raise CheckpointError(f"{model}: expects {metadata.color_order} pictures; this command makes RGB only")
    shown = _choose_stages(network, stages)
    size = metadata.input_size
    dataset = read_split(data.name, data.root, data.test_split, metadata.classes, size, data.test_size)
    view = view_loader(dataset, size, metadata.test_resize)
    indices = evenly_spaced(len(dataset), pictures)
    title = f"{metadata.architecture} ({Path(model).name})"

    with join_world(device) as world:
        network = network.to(world.device)
        batches = _maps(network, metadata, view, indices, shown, batch_size, workers, world.device)
        top = top_responses(batches, shown, patches)
        chosen = {stage: responding_channels(top[stage], channels) for stage in shown}
        some = [indices[place] for place in evenly_spaced(len(indices), examples)]
        (_, maps), *_ = _maps(network, metadata, view, some, shown, len(some), 0, world.device, quiet=True)
        examples_of = {stage: maps[stage].float().cpu().numpy() for stage in shown}

    filters = network.stages()["conv1"].modules[0].get_parameter("weight").detach().cpu().numpy()
    side = filters.shape[-1]
    save_figure(draw_filters(filters, f"{len(filters)} filters of conv1, {side}x{side}: {title}"), files["filters"])
    sections = {
        _heading(stage, maps): _activation_rows(maps, chosen[stage], [view(index) for index in some])
        for stage, maps in examples_of.items()
    }
    save_figure(draw_tiles(sections, f"Activations: {title}"), files["activations"])
    fields = stage_fields(network)
    sections = {
        f"{stage}: receptive field {fields[stage].size} pixels": [
            _patch_row(top[stage], chosen[stage], fields[stage], view)
        ]
        for stage in shown
    }
    heading = f"Strongest responses among {len(indices)} pictures: {title}"
    save_figure(draw_tiles(sections, heading), files["top_patches"])
    for stage in shown:
        alive = int((top[stage].values[0] > 0).sum())
        print(
            f"{stage}: {alive} of {top[stage].values.shape[1]} channels respond; receptive field "
            f"{fields[stage].size} pixels, stride {fields[stage].stride}; channels {' '.join(map(str, chosen[stage]))}"
        )
    print("\n".join(str(path) for path in files.values()))


def _choose_stages(network: StagedNetwork, names: Sequence[str]) -> list[str]:
    """The stages named, in their own order; the last four by default.

    Raises:
        ConfigError: the network has no such stage.
    """
    known = list(network.stages())
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"stages: no stage {unknown[0]!r}: the network has {', '.join(known)}")
    return [name for name in known if name in names] if names else known[-4:]


@torch.inference_mode()
def _maps(
    network: StagedNetwork,
    metadata: WeightsMetadata,
    view: View,
    indices: Sequence[int],
    stages: Sequence[str],
    batch_size: int,
    workers: int,
    device: torch.device,
    quiet: bool = False,
) -> Iterator[tuple[Sequence[int], dict[str, Tensor]]]:
    """Indices of pictures and what stages make of them, batch by batch."""
    mean, std = (torch.tensor(v, dtype=torch.float32, device=device) for v in (metadata.mean, metadata.std))

    def load(index: int) -> Tensor:
        return torch.from_numpy(np.array(view(index)))

    views = testing_batches(load, indices, batch_size=batch_size, workers=workers, collate=torch.stack)
    with progress_bar(total=len(indices), unit="picture", shown=not quiet) as bar:
        for place, batch in enumerate(views):
            first = place * batch_size
            yield (
                indices[first : first + len(batch)],
                stage_maps(network, normalize(batch.to(device), mean, std), stages),
            )
            bar.update(len(batch))


def _heading(stage: str, maps: np.ndarray) -> str:
    _, channels, height, width = maps.shape
    return f"{stage}: {channels} channels, {height}x{width}"


def _activation_rows(maps: np.ndarray, channels: Sequence[int], views: Sequence[np.ndarray]) -> list[Tiles]:
    titles = ["picture", *(f"channel {channel}" for channel in channels)]
    return [Tiles(titles, [view, *(m[channel] for channel in channels)]) for view, m in zip(views, maps, strict=True)]


def _patch_row(top: TopResponses, channels: Sequence[int], field: ReceptiveField, view: View) -> Tiles:
    mosaics = []
    for channel in channels:
        patches = [
            crop_patch(view(index), field, row, column)
            for value, index, row, column in zip(
                *(table[:, channel].tolist() for table in (top.values, top.pictures, top.rows, top.columns)),
                strict=True,
            )
            if value > 0
        ]
        mosaics.append(mosaic(patches, columns=int(np.ceil(len(patches) ** 0.5))))
    return Tiles([f"channel {channel}" for channel in channels], mosaics)


def crop_patch(view: np.ndarray, field: ReceptiveField, row: int, column: int) -> np.ndarray:
    """The part of a picture (H, W, 3) that a position of a feature map depends on, without what lies in the padding."""
    (top, bottom), (left, right) = field.extent(row), field.extent(column)
    return view[max(top, 0) : bottom, max(left, 0) : right]


def main(argv: Sequence[str] | None = None) -> None:
    """The command `show_features`."""
    run_command(show_features, argv=argv)
