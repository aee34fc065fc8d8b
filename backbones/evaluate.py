"""Testing classifiers as the paper does: error rates of single networks and ensembles. Also the command."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from backbones.cli import run_command
from backbones.config import ClassificationData, Expected, Protocol, compare_with_expected
from backbones.data.datasets import ClassificationDataset
from backbones.data.readers import read_split
from backbones.engine.acceleration import Precision, parameter_dtype
from backbones.engine.distributed import World, gather_objects, join_world
from backbones.engine.outputs import check_writable, write_json
from backbones.errors import CheckpointError, ConfigError
from backbones.models import StagedNetwork
from backbones.progress import progress_bar
from backbones.scores import summed_scores
from backbones.weights import LARGEST_SIDE, WeightsMetadata, load_classifier


def error_rates(scores: Tensor, labels: Tensor) -> tuple[int, int, int]:
    """Counts (pictures, wrong at top 1, wrong at top 5) from scores (N, K) and labels (N,)."""
    best = scores.topk(min(5, scores.shape[1]), dim=1).indices == labels[:, None]
    return len(labels), int((~best[:, :1].any(1)).sum()), int((~best.any(1)).sum())


def test_classifiers(
    models: Sequence[tuple[StagedNetwork, WeightsMetadata]],
    dataset: ClassificationDataset,
    protocols: Sequence[Protocol],
    *,
    world: World,
    batch_size: int,
    workers: int,
    scales: Sequence[int] | None = None,  # noqa: PT028 (no test of pytest's)
    flip: bool = True,  # noqa: PT028
    precision: Precision = "fp32",  # noqa: PT028
) -> dict[str, dict[str, float]]:
    """Error rates in percent by protocol; several networks vote by their mean scores.

    Each picture counts once, in one process. For `scales` and `flip` see `Showing`.

    Returns:
        {protocol: {"top1_error", "top5_error"}}, the same in every process.

    Raises:
        ConfigError: a scale that a network can't be shown.
    """
    for scale in scales or ():
        for _, metadata in models:
            if not metadata.input_size <= scale <= LARGEST_SIDE:
                raise ConfigError(f"scales {scale}: give {metadata.input_size} (the network's crops) to {LARGEST_SIDE}")
    indices = range(world.rank, len(dataset), world.size)
    labels = torch.from_numpy(dataset.labels[indices.start :: indices.step])
    results: dict[str, dict[str, float]] = {}
    for protocol in protocols:
        length = len(indices) * len(models)
        with (
            progress_bar(total=length, unit="picture", description=protocol, stays=False, shown=world.is_main) as bar,
            _without_autotuning(),
        ):
            total = summed_scores(
                models,
                dataset,
                protocol,
                indices,
                device=world.device,
                batch_size=batch_size,
                workers=workers,
                scales=scales,
                flip=flip,
                precision=precision,
                bar=bar,
            )
        counts = np.sum(gather_objects(error_rates(total, labels)), axis=0)
        results[protocol] = {"top1_error": 100 * counts[1] / counts[0], "top5_error": 100 * counts[2] / counts[0]}
    return results


@contextmanager
def _without_autotuning() -> Iterator[None]:
    """cuDNN would try all its algorithms on every new shape of picture."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@dataclass
class EvaluateConfig:
    """Tests one classifier, or several as an ensemble, on the test split of a data set.

    Sizes and normalisation come with the weights. Example: python tools/evaluate_classifier.py --model runs/resnet20
    --data.name cifar10 --data.root data --data.test_split test --protocol center 10crop

    Args:
        model: run folders or weights.safetensors files; several make an ensemble.
        data: the pictures; only name, root, official, test_split, test_size and cache count.
        protocol: how each picture is shown to the network.
        scales: for multiscale, the picture's shorter sides in pixels; by default the paper's 224, 256, 384, 480 and
            640, for networks of smaller pictures in proportion.
        flip: whether multiscale also shows the mirror image.
        expected: the numbers that these networks should reach.
        output: a JSON file for the results.
        batch_size: crops at a time; of larger pictures as many as have no more pixels.
        workers: data-loading processes.
        device: auto takes a GPU where there is one.
        precision: fp32, bf16 (mixed) or fp64.
    """

    model: list[str]
    data: ClassificationData = field(default_factory=ClassificationData)
    protocol: list[Protocol] = field(default_factory=lambda: ["center"])
    scales: list[int] = field(default_factory=list)
    flip: bool = True
    expected: list[Expected] = field(default_factory=list)
    output: str | None = None
    batch_size: int = 64
    workers: int = 4
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Precision = "fp32"


def evaluate_classifier(config: EvaluateConfig) -> None:
    """Tests classifiers, prints the results and writes them to a file where one is named.

    Raises:
        UserError: configuration, weights or data can't be used.
    """
    if config.batch_size < 1 or config.workers < 0:
        raise ConfigError(f"batch_size {config.batch_size}, workers {config.workers}: give 1 or more, and 0 or more")
    if not config.protocol:
        raise ConfigError("protocol: name one or more")
    if config.scales and "multiscale" not in config.protocol:
        raise ConfigError("scales: add multiscale to the protocols, no other uses them")
    if config.output:
        check_writable(Path(config.output))
    with join_world(config.device) as world:
        models = _load(config.model)
        data, (_, first) = config.data, models[0]
        dataset = read_split(
            data.name,
            data.root,
            data.test_split,
            first.classes,
            first.input_size,
            data.test_size,
            official=data.official,
            cache=data.cache,
            cache_gigabytes=data.cache_gigabytes,
        )
        results = test_classifiers(
            [(network.to(world.device, parameter_dtype(config.precision)), metadata) for network, metadata in models],
            dataset,
            config.protocol,
            world=world,
            batch_size=config.batch_size,
            workers=config.workers,
            scales=config.scales or None,
            flip=config.flip,
            precision=config.precision,
        )
        if world.is_main:
            print(f"{len(dataset)} pictures, {len(models)} network(s)")
            print(format_errors(results))
            if config.expected:
                print(compare_with_expected(results, config.expected))
            if config.output:
                write_json(Path(config.output), results)


def _load(paths: Sequence[str]) -> list[tuple[StagedNetwork, WeightsMetadata]]:
    if not paths:
        raise ConfigError("model: name one or more")
    networks = [load_classifier(path) for path in paths]
    classes = networks[0][1].classes
    for path, (_, metadata) in zip(paths, networks, strict=True):
        if metadata.classes != classes:
            raise CheckpointError(
                f"{path}: its {len(metadata.classes)} classes are not those of {paths[0]} ({len(classes)}): "
                "leave it out"
            )
    return networks


def format_errors(results: dict[str, dict[str, float]]) -> str:
    """A table of error rates."""
    rows = [f"{'protocol':<12}{'top-1 error %':>14}{'top-5 error %':>14}"]
    rows += [f"{name:<12}{r['top1_error']:>14.2f}{r['top5_error']:>14.2f}" for name, r in results.items()]
    return "\n".join(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """The command `evaluate_classifier`."""
    run_command(EvaluateConfig, evaluate_classifier, argv=argv)


if __name__ == "__main__":
    main()
