"""The command `layer_responses`: how strongly the layers of trained networks respond, as in Figure 7."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from backbones.analysis.curves import distinct
from backbones.analysis.figures import check_figure, save_figure
from backbones.analysis.response_figure import draw_responses
from backbones.analysis.responses import NetworkResponses, measure_responses
from backbones.analysis.samples import evenly_spaced, view_loader
from backbones.cli import run_command
from backbones.config import ClassificationData
from backbones.data.loader import testing_batches
from backbones.data.readers import read_split
from backbones.engine.distributed import join_world
from backbones.engine.outputs import check_writable, write_json
from backbones.errors import ConfigError
from backbones.models.stages import StagedNetwork
from backbones.progress import progress_bar
from backbones.scores import normalize
from backbones.weights import WeightsMetadata, load_classifier

_BUILT_IN = ClassificationData(name="shapes")


def layer_responses(
    model: list[str],
    data: ClassificationData = _BUILT_IN,
    count: int = 1000,
    batch_size: int = 32,
    workers: int = 4,
    labels: list[str] = [],  # noqa: B006 (read by the command line, never changed)
    layers: bool = False,
    output: str | None = None,
    figure: str | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Measures how strongly the layers of trained networks respond, plain and residual (4.2, Fig. 7).

    A layer's response is the output of a 3x3 convolution after batch norm and before the nonlinearity or the addition;
    its standard deviation is over pictures, channels and positions. Example: python tools/layer_responses.py --model
    runs/plain20 runs/resnet20 --data.name cifar10 --data.root data --data.test_split test --figure fig7.png

    Args:
        model: run folders or weights.safetensors files.
        data: the pictures, the built-in shapes by default; only name, root and test_split count.
        count: how many pictures to look at, spread over the data set.
        batch_size: pictures at a time.
        workers: data-loading processes.
        labels: what to call the networks, in their order; by default their names and options.
        layers: print every layer.
        output: a JSON file for the numbers of all layers.
        figure: a picture of them (.png, .svg, .pdf): above in the order of the layers, below sorted.
        device: auto takes a GPU where there is one.
    """
    for name, value, least in (("count", count, 1), ("batch_size", batch_size, 1), ("workers", workers, 0)):
        if value < least:
            raise ConfigError(f"{name} {value}: give {least} or more")
    if labels and len(labels) != len(model):
        raise ConfigError(f"labels: {len(labels)} for {len(model)} model(s); give one for each")
    if output:
        check_writable(Path(output))
    figure_path = check_figure(figure) if figure else None
    runs = [_open(path, data, count) for path in model]
    names = labels or distinct(_label(run.metadata) for run in runs)

    networks = []
    with join_world(device) as world, progress_bar(total=sum(len(run.indices) for run in runs), unit="picture") as bar:
        for run, name in zip(runs, names, strict=True):
            batches = run.batches(batch_size, workers, world.device, done=bar.update)
            networks.append(_measure(run, name, batches, world.device))

    print(format_summary(networks))
    if layers:
        for network in networks:
            print(f"\n{format_layers(network)}")
    if output:
        write_json(
            Path(output),
            [
                {"model": path, "pictures": len(run.indices), **_plain(network)}
                for path, run, network in zip(model, runs, networks, strict=True)
            ],
        )
    if figure_path:
        save_figure(draw_responses(networks), figure_path)
        print(f"figure: {figure_path}")


def measure_run(
    path: str | Path,
    data: ClassificationData = _BUILT_IN,
    *,
    count: int = 1000,
    batch_size: int = 32,
    workers: int = 0,
    label: str | None = None,
    device: str = "cpu",
) -> NetworkResponses:
    """The responses of a trained network's layers.

    Args:
        path: a run folder or a weights.safetensors file.
        data: the pictures; only name, root and test_split count.
        count: how many pictures, spread over the data set.
        batch_size: pictures at a time.
        workers: data-loading processes.
        label: what to call the network; by default its name and options.
        device: where to compute.

    Raises:
        CheckpointError: the weights can't be used.
        ConfigError, DataError: the data can't be read or have other classes.
    """
    run, place = _open(path, data, count), torch.device(device)
    return _measure(run, label or _label(run.metadata), run.batches(batch_size, workers, place), place)


@dataclass(frozen=True)
class _Run:
    """A trained network in eval mode, and pictures as it was tested on.

    Args:
        network: on the CPU.
        metadata: says how its input is normalised.
        view: gives a picture (H, W, 3) by its index.
        indices: of the pictures.
    """

    network: StagedNetwork
    metadata: WeightsMetadata
    view: Callable[[int], np.ndarray]
    indices: Sequence[int]

    def batches(
        self,
        batch_size: int,
        workers: int,
        device: torch.device,
        done: Callable[[int], object] = lambda count: None,
    ) -> Iterator[Tensor]:
        """Normalised pictures (B, 3, H, W); `done` hears how many a batch had."""
        mean, std = (torch.tensor(v, device=device).float() for v in (self.metadata.mean, self.metadata.std))
        view = self.view

        def load(index: int) -> Tensor:
            return torch.from_numpy(np.array(view(index)))

        for views in testing_batches(load, self.indices, batch_size=batch_size, workers=workers, collate=torch.stack):
            yield normalize(views.to(device), mean, std)
            done(len(views))


def _open(path: str | Path, data: ClassificationData, count: int) -> _Run:
    network, metadata = load_classifier(path)
    size = metadata.input_size
    dataset = read_split(data.name, data.root, data.test_split, metadata.classes, size, count)
    view = view_loader(dataset, size, metadata.test_resize)
    return _Run(network, metadata, view, evenly_spaced(len(dataset), count))


def _measure(run: _Run, label: str, batches: Iterator[Tensor], device: torch.device) -> NetworkResponses:
    layers = measure_responses(run.network.to(device), batches)
    run.network.cpu()  # the next one may need the room
    return NetworkResponses(label, "resnet" in run.metadata.architecture, layers)


def _label(metadata: WeightsMetadata) -> str:
    words = [f"{key} {value}" for key, value in metadata.options.items()]
    return metadata.architecture + (f" ({', '.join(words)})" if words else "")


def format_summary(networks: Sequence[NetworkResponses]) -> str:
    """A row for each network: how many layers it has, and their standard deviations."""
    width = max(len("network"), *(len(network.label) for network in networks))
    heads = ("mean", "median", "min", "max")
    lines = [
        f"{'':{width}} {'':>6}   {'standard deviation of responses':^36}".rstrip(),
        f"{'network':{width}} {'layers':>6}   {''.join(f'{head:>9}' for head in heads)}",
    ]
    for network in networks:
        values = [layer.std for layer in network.layers]
        shown = "".join(f"{value:>9.4g}" for value in (mean(values), median(values), min(values), max(values)))
        lines.append(f"{network.label:{width}} {len(values):>6}   {shown}")
    return "\n".join(lines)


def format_layers(network: NetworkResponses) -> str:
    """A row for each layer, in the order in which they run."""
    width = max(len(layer.name) for layer in network.layers)
    rows = [f"{layer.name:{width}}{layer.std:>12.4g}" for layer in network.layers]
    return "\n".join([network.label, f"{'layer':{width}}{'std':>12}", *rows])


def _plain(network: NetworkResponses) -> dict[str, Any]:
    """What JSON can hold: None in the place of a number that is not finite."""
    layers = [{"name": layer.name, "std": layer.std if math.isfinite(layer.std) else None} for layer in network.layers]
    return asdict(network) | {"layers": layers}


def main(argv: Sequence[str] | None = None) -> None:
    """The command `layer_responses`."""
    run_command(layer_responses, argv=argv)
