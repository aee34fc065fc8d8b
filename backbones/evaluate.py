"""Testing classifiers as the paper does: centre crop, 10-crop, ensembles (3.4). Also the command."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from backbones.cli import run_command
from backbones.config import ClassificationData
from backbones.data.augment import center_crop, ten_crop
from backbones.data.datasets import ClassificationDataset
from backbones.data.loader import testing_batches
from backbones.data.readers import read_split
from backbones.engine.distributed import World, gather_objects, join_world
from backbones.engine.run import check_writable, write_json
from backbones.errors import CheckpointError, ConfigError, DataError
from backbones.weights import WeightsMetadata, load_classifier

Protocol = Literal["center", "10crop"]
_VIEWS = {"center": center_crop, "10crop": ten_crop}


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) to the network's input (B, 3, H, W); `mean` is (3,) or (3, H, W), `std` (3,), of 0..255."""
    mean = mean.view(3, 1, 1) if mean.ndim == 1 else mean
    return (images.permute(0, 3, 1, 2).to(mean.dtype) - mean) / std.view(3, 1, 1)


@torch.inference_mode()
def class_scores(
    model: nn.Module,
    metadata: WeightsMetadata,
    dataset: ClassificationDataset,
    protocol: Protocol,
    indices: Sequence[int],
    *,
    device: torch.device,
    batch_size: int,
    workers: int,
) -> Tensor:
    """Softmax scores (len(indices), K) of a network in eval mode, averaged over the views of each picture."""
    dtype = next(model.parameters()).dtype
    mean, std = (torch.tensor(v, dtype=dtype, device=device) for v in (metadata.mean, metadata.std))

    def load(index: int) -> Tensor:
        try:
            views = _VIEWS[protocol](dataset.picture(index), metadata.input_size, metadata.test_resize)
        except DataError as error:
            raise _naming(dataset.name(index), error) from error
        return torch.from_numpy(np.stack(views))

    scores = []
    for views in testing_batches(load, indices, batch_size=batch_size, workers=workers, collate=torch.stack):
        pictures, count = views.shape[:2]
        logits = model(normalize(views.flatten(0, 1).to(device), mean, std))
        scores.append(logits.float().softmax(1).view(pictures, count, -1).mean(1).cpu())
    return torch.cat(scores) if scores else torch.empty(0, len(metadata.classes))


def error_rates(scores: Tensor, labels: Tensor) -> tuple[int, int, int]:
    """Counts (pictures, wrong at top 1, wrong at top 5) from scores (N, K) and labels (N,)."""
    best = scores.topk(min(5, scores.shape[1]), dim=1).indices == labels[:, None]
    return len(labels), int((~best[:, :1].any(1)).sum()), int((~best.any(1)).sum())


def test_classifiers(
    models: Sequence[tuple[nn.Module, WeightsMetadata]],
    dataset: ClassificationDataset,
    protocols: Sequence[Protocol],
    *,
    world: World,
    batch_size: int,
    workers: int,
) -> dict[str, dict[str, float]]:
    """Error rates in percent by protocol; several networks vote by their mean scores.

    Each picture counts once, in one process.

    Returns:
        {protocol: {"top1_error", "top5_error"}}, the same in every process.
    """
    indices = range(world.rank, len(dataset), world.size)
    labels = torch.from_numpy(dataset.labels[indices.start :: indices.step])
    results: dict[str, dict[str, float]] = {}
    for protocol in protocols:
        total = torch.zeros(len(indices), len(dataset.class_names))
        for model, metadata in models:
            total += class_scores(
                model, metadata, dataset, protocol, indices, device=world.device, batch_size=batch_size, workers=workers
            )
        counts = np.sum(gather_objects(error_rates(total, labels)), axis=0)
        results[protocol] = {"top1_error": 100 * counts[1] / counts[0], "top5_error": 100 * counts[2] / counts[0]}
    return results


def evaluate_classifier(
    model: list[str],
    data: ClassificationData,
    protocol: list[Protocol] = ["center"],  # noqa: B006 (jsonargparse reads the default)
    output: str | None = None,
    batch_size: int = 64,
    workers: int = 4,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Tests one classifier, or several as an ensemble, on the test split of a data set.

    Sizes and normalisation come with the weights. Example: python tools/evaluate_classifier.py --model runs/resnet20
    --data.name cifar10 --data.root data --data.test_split test --protocol center 10crop

    Args:
        model: run folders or weights.safetensors files; several make an ensemble.
        data: the pictures; only name, root, test_split and test_size count.
        protocol: how each picture is shown to the network.
        output: a JSON file for the results.
        batch_size: pictures at a time.
        workers: data-loading processes.
        device: auto takes a GPU where there is one.
    """
    if batch_size < 1 or workers < 0:
        raise ConfigError(f"batch_size {batch_size}, workers {workers}: give 1 or more, and 0 or more")
    if not protocol:
        raise ConfigError("protocol: name one or more")
    if output:
        check_writable(Path(output))
    with join_world(device) as world:
        networks = [load_classifier(path) for path in model]
        classes = networks[0][1].classes
        for path, (_, metadata) in zip(model, networks, strict=True):
            if metadata.classes != classes:
                raise CheckpointError(
                    f"{path}: its {len(metadata.classes)} classes are not those of {model[0]} ({len(classes)})"
                )
            if metadata.color_order != "RGB":
                raise CheckpointError(f"{path}: expects {metadata.color_order} pictures; this command makes RGB only")
        dataset = read_split(data.name, data.root, data.test_split, classes, networks[0][1].input_size, data.test_size)
        models = [(network.to(world.device), metadata) for network, metadata in networks]
        results = test_classifiers(models, dataset, protocol, world=world, batch_size=batch_size, workers=workers)
        if world.is_main:
            print(f"{len(dataset)} pictures, {len(models)} network(s)")
            print(format_errors(results))
            if output:
                write_json(Path(output), results)


def format_errors(results: dict[str, dict[str, float]]) -> str:
    """A table of error rates."""
    rows = [f"{'protocol':<12}{'top-1 error %':>14}{'top-5 error %':>14}"]
    rows += [f"{name:<12}{r['top1_error']:>14.2f}{r['top5_error']:>14.2f}" for name, r in results.items()]
    return "\n".join(rows)


def _naming(name: str, error: DataError) -> DataError:
    return error if name in str(error) else DataError(f"{name}: {error}")


def main(argv: Sequence[str] | None = None) -> None:
    """The command `evaluate_classifier`."""
    run_command(evaluate_classifier, argv=argv)


if __name__ == "__main__":
    main()
