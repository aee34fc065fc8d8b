"""The command `show_features`: pictures of what low, middle and high stages of a trained network respond to."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from backbones.analysis.feature_figures import Tiles, draw_filters, draw_tiles, mosaic
from backbones.analysis.features import TopResponses, responding_channels, top_responses
from backbones.analysis.figures import check_figure, save_figure
from backbones.analysis.look import Look, View
from backbones.analysis.receptive_field import ReceptiveField, stage_fields
from backbones.analysis.samples import evenly_spaced, view_loader
from backbones.cli import run_command
from backbones.config import ClassificationData
from backbones.data.readers import read_split
from backbones.engine.distributed import join_world
from backbones.errors import ConfigError
from backbones.models.stages import StagedNetwork
from backbones.progress import progress_bar
from backbones.weights import load_classifier

_KINDS = ("filters", "activations", "top_patches")


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
    _check_counts(channels=channels, patches=patches, examples=examples, pictures=pictures, batch_size=batch_size)
    if workers < 0:
        raise ConfigError(f"workers {workers}: give 0 or more")
    files = {kind: check_figure(str(Path(output) / f"{kind}.png")) for kind in _KINDS}
    network, metadata = load_classifier(model)
    shown = _choose_stages(network, stages)
    size = metadata.input_size
    dataset = read_split(data.name, data.root, data.test_split, metadata.classes, size, data.test_size)
    view = view_loader(dataset, size, metadata.test_resize)
    indices = evenly_spaced(len(dataset), pictures)
    some = [indices[place] for place in evenly_spaced(len(indices), examples)]

    with join_world(device) as world:
        look = Look(network.to(world.device), metadata, view, shown, world.device)
        with progress_bar(total=len(indices), unit="picture") as bar:
            top = top_responses(look.at(indices, batch_size, workers, done=bar.update), shown, patches)
        [(_, maps)] = look.at(some, len(some), workers=0)
        maps = {stage: maps[stage].float().cpu() for stage in shown}
    chosen = {stage: responding_channels(top[stage], channels) for stage in shown}
    fields = stage_fields(network)

    title = f"{metadata.architecture} ({Path(model).name})"
    save_figure(_filters(network, title), files["filters"])
    save_figure(_activations(maps, chosen, [view(index) for index in some], title), files["activations"])
    save_figure(_top_patches(top, chosen, fields, view, f"{len(indices)} pictures: {title}"), files["top_patches"])
    for stage in shown:
        alive = int((top[stage].values[0] > 0).sum())
        print(
            f"{stage}: {alive} of {top[stage].values.shape[1]} channels respond; receptive field "
            f"{fields[stage].size} pixels, stride {fields[stage].stride}; channels {' '.join(map(str, chosen[stage]))}"
        )
    print("\n".join(str(path) for path in files.values()))


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        most = {"channels": 32, "examples": 32, "patches": 100}.get(name)  # a figure has no room for more
        if count < 1 or (most and count > most):
            raise ConfigError(f"{name} {count}: give {f'1 to {most}' if most else '1 or more'}")


def _choose_stages(network: StagedNetwork, names: Sequence[str]) -> list[str]:
    """The stages named, in their own order; the last four by default.

    Raises:
        ConfigError: the network has no such stage.
    """
    known = list(network.stages())
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"stages: no stage {unknown[0]!r}: the network has {', '.join(known)}")
    return [name for name in known if name in names] if names else known[-4:]


def _filters(network: StagedNetwork, title: str) -> Figure:
    weight = network.stages()["conv1"].modules[0].get_parameter("weight").detach().cpu().numpy()
    count, _, height, width = weight.shape
    return draw_filters(weight, f"{count} filters of conv1, {height}x{width}: {title}")


def _activations(
    maps: dict[str, Tensor], chosen: dict[str, list[int]], views: Sequence[np.ndarray], title: str
) -> Figure:
    sections = {}
    for stage, channels in chosen.items():
        titles = ["picture", *(f"channel {channel}" for channel in channels)]
        rows = [
            Tiles(titles, [view, *(responses[channel] for channel in channels)])
            for view, responses in zip(views, maps[stage].numpy(), strict=True)
        ]
        count, height, width = maps[stage].shape[1:]
        sections[f"{stage}: {count} channels, {height}x{width}"] = rows
    return draw_tiles(sections, f"Activations: {title}")


def _top_patches(
    top: dict[str, TopResponses],
    chosen: dict[str, list[int]],
    fields: dict[str, ReceptiveField],
    view: View,
    title: str,
) -> Figure:
    sections = {}
    for stage, channels in chosen.items():
        mosaics = []
        for channel in channels:
            patches = [
                crop_patch(view(index), fields[stage], row, column) for index, row, column in top[stage].of(channel)
            ]
            mosaics.append(mosaic(patches, columns=math.ceil(len(patches) ** 0.5)))
        tiles = Tiles([f"channel {channel}" for channel in channels], mosaics)
        sections[f"{stage}: receptive field {fields[stage].size} pixels"] = [tiles]
    return draw_tiles(sections, f"Strongest responses among {title}")


def crop_patch(view: np.ndarray, field: ReceptiveField, row: int, column: int) -> np.ndarray:
    """The part of a picture (H, W, 3) that a position of a feature map depends on, without what lies in the padding."""
    (top, bottom), (left, right) = field.extent(row), field.extent(column)
    return view[max(top, 0) : bottom, max(left, 0) : right]


def main(argv: Sequence[str] | None = None) -> None:
    """The command `show_features`."""
    run_command(show_features, argv=argv)
