"""The command `signal_propagation`: signals and gradients through networks, with and without batch normalisation."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from backbones.analysis.figures import check_figure, save_figure
from backbones.analysis.samples import draw_sample, standardise
from backbones.analysis.signal_figure import draw_signals
from backbones.analysis.signals import (
    Initialisation,
    Norm,
    SignalCase,
    measure_signals,
    new_network,
    spread,
)
from backbones.cli import run_command
from backbones.config import ClassificationData
from backbones.data.datasets import ClassificationDataset
from backbones.data.readers import read_split
from backbones.engine.outputs import check_writable, write_json
from backbones.errors import ConfigError, DataError
from backbones.models import get_model
from backbones.models.stages import StagedNetwork
from backbones.progress import progress_bar
from backbones.scores import normalize
from backbones.weights import load_classifier

_DEFAULT_NAMES = ["plain18", "plain34", "resnet18", "resnet34"]
_BUILT_IN = ClassificationData(name="shapes")


def signal_propagation(
    names: list[str] = [],  # noqa: B006 (read by the command line, never changed)
    model: list[str] = [],  # noqa: B006
    norm: list[Norm] = ["batch", "none"],  # noqa: B006
    initialisation: list[Initialisation] = ["he", "small", "large"],  # noqa: B006
    data: ClassificationData = _BUILT_IN,
    noise: bool = False,
    width: int = 16,
    input_size: int | None = None,
    batch_size: int = 8,
    seed: int = 0,
    layers: bool = False,
    output: str | None = None,
    figure: str | None = None,
) -> None:
    """Shows whether signals vanish or explode on their way through networks, and gradients on their way back (4.1).

    One batch goes through each network in training mode, and the gradient of its loss back. For every convolution and
    linear layer: the variance of its output, and the norm of the loss's gradient with respect to its output and its
    weights. Example: python tools/signal_propagation.py plain18 plain34 --figure signals.png

    Args:
        names: networks with new weights; plain18, plain34, resnet18 and resnet34 if no --model is given either.
        model: trained networks too: run folders or weights.safetensors files.
        norm: with batch normalisation, without, or both.
        initialisation: he (He et al. 2015: normal, variance 2 / fan-in), or careless ones with one standard deviation
            for all layers: small (0.01, as AlexNet and VGG had), large (0.1).
        data: the pictures, the built-in shapes by default; only name, root and test_split count.
        noise: normally distributed numbers and random labels in the place of pictures (not with --model).
        width: channels of conv1 of the networks with new weights; the paper's are 64, CIFAR 16.
        input_size: side of their pictures; 224 by default, 32 for CIFAR networks.
        batch_size: pictures, spread over the data set.
        seed: of weights and noise.
        layers: print every layer.
        output: a JSON file for the numbers of all layers.
        figure: a picture of them by depth (.png, .svg, .pdf).
    """
    if batch_size < 2:
        raise ConfigError(f"batch_size {batch_size}: give 2 or more, as batch normalisation needs")
    if input_size is not None and not 1 <= input_size <= 1024:
        raise ConfigError(f"input_size {input_size}: give 1 to 1024")
    if not -(2**63) <= seed < 2**63:
        raise ConfigError(f"seed {seed}: give a number of at most 63 bits")
    if noise and model:
        raise ConfigError("--noise: a trained network wants pictures; leave out --noise or --model")
    if output:
        check_writable(Path(output))
    figure_path = check_figure(figure) if figure else None
    jobs = _new_networks(names or ([] if model else _DEFAULT_NAMES), norm, initialisation, width)
    first = {job.name: job for job in reversed(jobs)}
    batches = {name: _new_batch(job, data, noise, input_size, batch_size, seed) for name, job in first.items()}
    trained = [_load(path, data, batch_size) for path in model]

    cases = []
    with progress_bar(total=len(jobs) + len(trained), unit="network") as bar:
        for job in jobs:
            cases.append(_measure_new(job, batches[job.name], seed))
            bar.update()
        for path, network, batch in trained:
            torch.manual_seed(seed)  # of dropout
            signals = measure_signals(network, batch.pictures, batch.labels)
            cases.append(SignalCase(path, _norm_of(network), "trained", signals))
            bar.update()

    print(format_summary(cases))
    if layers:
        for case in cases:
            print(f"\n{format_layers(case)}")
    if output:
        write_json(Path(output), [_plain(case) for case in cases])
    if figure_path:
        save_figure(draw_signals(cases), figure_path)
        print(f"figure: {figure_path}")


@dataclass(frozen=True)
class _Job:
    """A network with new weights to be measured; `plan` is the same one without data."""

    name: str
    norm: Norm
    initialisation: Initialisation
    width: int
    plan: StagedNetwork


class _Batch(NamedTuple):
    """Normalised pictures (B, 3, H, W), labels (B,), and how many classes there are."""

    pictures: Tensor
    labels: Tensor
    classes: int


def _new_networks(
    names: Sequence[str], norms: Sequence[Norm], initialisations: Sequence[Initialisation], width: int
) -> list[_Job]:
    """Every combination; networks that have no batch norm (VGG as published) come without only."""
    jobs = []
    for name in dict.fromkeys(names):
        with torch.device("meta"):
            plan = get_model(name, width=width)
        own: Sequence[Norm] = list(dict.fromkeys(norms)) if _norm_of(plan) == "batch" else ["none"]
        jobs += [_Job(name, norm, kind, width, plan) for norm in own for kind in dict.fromkeys(initialisations)]
    return jobs


def _new_batch(
    job: _Job, data: ClassificationData, noise: bool, input_size: int | None, batch_size: int, seed: int
) -> _Batch:
    """Pictures of a network's size, normalised by themselves; or noise."""
    size = input_size or job.plan.input_size
    if noise:
        generator = torch.Generator().manual_seed(seed)
        pictures = torch.randn(batch_size, 3, size, size, generator=generator, dtype=torch.float64)
        labels = torch.randint(job.plan.num_classes, (batch_size,), generator=generator)
        return _Batch(pictures, labels, job.plan.num_classes)
    dataset = read_split(data.name, data.root, data.test_split, None, size, batch_size)
    views, labels = _sample(dataset, batch_size, size, size)
    return _Batch(standardise(views), labels, len(dataset.class_names))


def _measure_new(job: _Job, batch: _Batch, seed: int) -> SignalCase:
    network = new_network(
        job.name,
        norm=job.norm,
        initialisation=job.initialisation,
        seed=seed,
        width=job.width,
        num_classes=batch.classes,
    )
    try:
        signals = measure_signals(network, batch.pictures, batch.labels)
    except (RuntimeError, ValueError) as error:  # a pool has nothing left, batch norm has a single value
        size = batch.pictures.shape[-1]
        raise ConfigError(f"{job.name} can't take pictures of {size} pixels, set input_size: {error}") from error
    return SignalCase(job.name, job.norm, job.initialisation, signals)


def _load(path: str, data: ClassificationData, batch_size: int) -> tuple[str, StagedNetwork, _Batch]:
    """A trained network, and pictures as it was tested on."""
    network, metadata = load_classifier(path)
    size = metadata.input_size
    dataset = read_split(data.name, data.root, data.test_split, metadata.classes, size, batch_size)
    views, labels = _sample(dataset, batch_size, size, metadata.test_resize)
    mean, std = (torch.tensor(value, dtype=torch.float64) for value in (metadata.mean, metadata.std))
    return path, network, _Batch(normalize(views, mean, std), labels, len(metadata.classes))


def _sample(dataset: ClassificationDataset, count: int, size: int, shorter: int | None) -> tuple[Tensor, Tensor]:
    views, labels = draw_sample(dataset, count, size, shorter)
    if len(labels) < 2:
        raise DataError(f"{dataset.name(0)}: the only picture of its data set; batch normalisation needs 2 or more")
    return views, labels


def _norm_of(network: nn.Module) -> Norm:
    return "batch" if any(isinstance(m, nn.BatchNorm2d) for m in network.modules()) else "none"


def format_summary(cases: Sequence[SignalCase]) -> str:
    """A row for each network: first, middle and last layer, and how far apart the layers are."""
    width = max([len(case.network) for case in cases] + [len("network")])
    group = f"{'first':>9}{'middle':>9}{'last':>9}{'max/min':>9}"
    lines = [
        f"{'':{width}} {'':5} {'':7} {'variance of outputs':^36}   {'norm of gradients at outputs':^36}".rstrip(),
        f"{'network':{width}} {'norm':5} {'weights':7} {group}   {group}",
    ]
    for case in cases:
        columns = [
            _ends([layer.variance for layer in case.layers]),
            _ends([layer.gradient_norm for layer in case.layers]),
        ]
        lines.append(f"{case.network:{width}} {case.norm:5} {case.initialisation:7} {'   '.join(columns)}")
    return "\n".join(lines)


def format_layers(case: SignalCase) -> str:
    """A row for each layer."""
    width = max(len(layer.name) for layer in case.layers)
    heads = ["variance", "gradient", "rms", "of weights", "rms"]
    lines = [
        f"{case.network}, norm {case.norm}, weights {case.initialisation}",
        f"{'layer':{width}}" + "".join(f"{head:>12}" for head in heads),
    ]
    for layer in case.layers:
        values = list(asdict(layer).values())[1:]
        lines.append(f"{layer.name:{width}}" + "".join(f"{value:>12.2e}" for value in values))
    return "\n".join(lines)


def _ends(values: list[float]) -> str:
    shown = [values[0], values[len(values) // 2], values[-1], spread(values)]
    return "".join(f"{value:>9.1e}" for value in shown)


def _plain(case: SignalCase) -> dict[str, Any]:
    """What JSON can hold: None in the place of infinity, where a signal has exploded beyond double precision."""
    layers = [
        {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(layer).items()}
        for layer in case.layers
    ]
    return asdict(case) | {"layers": layers}


def main(argv: Sequence[str] | None = None) -> None:
    """The command `signal_propagation`."""
    run_command(signal_propagation, positional="names", argv=argv)
