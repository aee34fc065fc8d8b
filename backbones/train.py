"""Training classifiers. Also the command `pretrain`."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from backbones.cli import run_command
from backbones.config import ClassificationData, PretrainConfig, Protocol, check_data, check_options
from backbones.data.augment import Augmentation, Flip, PadCropFlip, RandomResizedCrop, ScaleCropFlip
from backbones.data.datasets import ClassificationDataset
from backbones.data.loader import training_batches
from backbones.data.normalization import IMAGENET_MEAN, IMAGENET_STD
from backbones.data.readers import read_split
from backbones.data.sampler import SampleKey, StepSampler
from backbones.data.statistics import PixelStatistics, compute_statistics, load_statistics, statistics_path
from backbones.data.transforms import NamedTransforms
from backbones.engine.acceleration import autocast, parameter_dtype
from backbones.engine.batch_norm import average_batch_norm
from backbones.engine.distributed import World, join_world
from backbones.engine.loop import ComputeLoss
from backbones.engine.randomness import derive_seed
from backbones.errors import CheckpointError, ConfigError, DataError
from backbones.evaluate import format_errors, normalize, test_classifiers
from backbones.fidelity import format_departures, recipe_defaults, resolve
from backbones.models import StagedNetwork, get_model
from backbones.progress import progress_bar
from backbones.training import fit, prepare
from backbones.weights import WeightsMetadata, load_state, load_weights, save_weights

_COLOR_DEVIATION = 0.1  # of the draws along the colour components (AlexNet)


class Batch(NamedTuple):
    """A micro-batch on its way to the device.

    Args:
        images: (B, H, W, 3) uint8.
        labels: (B,) int64.
        color_shifts: (B, 3) float32, added to the pixel values of each picture; in 0..255.
    """

    images: Tensor
    labels: Tensor
    color_shifts: Tensor


def pretrain(config: PretrainConfig) -> dict[str, Any] | None:
    """Trains and tests a classifier; leaves a run folder.

    Returns:
        The results, in the main process.

    Raises:
        UserError: configuration, data, weights or output can't be used.
    """
    with join_world(config.device) as world:
        config = resolve(config)
        prepare(config, world)
        check_data(config.data)
        check_loss(config)
        data = config.data
        train_set = read_split(data.name, data.root, data.train_split, None, data.input_size, data.train_size)
        test_set = read_split(
            data.name, data.root, data.test_split, train_set.class_names, data.input_size, data.test_size
        )
        origin = load_weights(config.weights) if config.weights else None
        statistics = _statistics(data, train_set, shown=world.is_main)
        mean, std = _normalization(data, statistics, origin[1] if origin else None)
        metadata = WeightsMetadata(
            task="classification",
            architecture=config.model.name,
            options=dict(config.model.options),
            classes=train_set.class_names,
            mean=mean,
            std=std,
            input_size=data.input_size,
            test_resize=data.test_resize,
            batch_norm="exact" if config.exact_bn else "moving",
        )
        model = _build(config, metadata, origin, world)
        load = _loader(train_set, data, statistics if data.color == "pca" else None)
        prepare_input = input_maker(metadata, world.device, parameter_dtype(config.precision))

        def test(protocols: list[Protocol]) -> dict[str, Any]:
            return test_classifiers(
                [(model, metadata)], test_set, protocols, world=world, batch_size=64, workers=config.train.workers
            )

        return fit(
            config,
            world,
            model,
            description="\n".join([_describe(model, config, train_set, test_set), format_departures(config)]),
            samples=len(train_set),
            fingerprint=train_set.fingerprint(),
            load=load,
            collate=_collate,
            compute_loss=classification_loss(prepare_input, config.label_smoothing),
            test=lambda: test(config.protocol),
            monitor=lambda: test(["center"]),
            curve_values=_curve_values,
            save=lambda path: save_weights(path, model.state_dict(), metadata),
            format_results=format_errors,
            name_sample=train_set.name,
            watch="top1_error",
            finish=lambda: _use_exact_batch_norm(config, world, model, len(train_set), load, prepare_input),
        )


def check_loss(config: PretrainConfig) -> None:
    """Refuses a label smoothing or list of protocols that makes no sense.

    Raises:
        ConfigError: names the key.
    """
    if not 0 <= config.label_smoothing < 1:
        raise ConfigError(f"label_smoothing {config.label_smoothing}: give a number from 0 to below 1")
    if not config.protocol:
        raise ConfigError("protocol: name one or more")


def input_maker(metadata: WeightsMetadata, device: torch.device, dtype: torch.dtype) -> Callable[[Batch], Tensor]:
    """Moves a batch to the device and makes the network's input (B, 3, H, W) of it there: colours and normalisation."""
    mean, std = (torch.tensor(value, dtype=dtype, device=device) for value in (metadata.mean, metadata.std))

    def prepare_input(batch: Batch) -> Tensor:
        shifts = batch.color_shifts.to(device, non_blocking=True).to(dtype) / std
        return normalize(batch.images.to(device, non_blocking=True), mean, std) + shifts[:, :, None, None]

    return prepare_input


def classification_loss(prepare_input: Callable[[Batch], Tensor], label_smoothing: float = 0.0) -> ComputeLoss:
    """Cross-entropy of a batch, and its top-1 error in percent."""

    def compute(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        images = prepare_input(batch)
        labels = batch.labels.to(images.device, non_blocking=True)
        logits = model(images)
        wrong = (logits.detach().argmax(1) != labels).double().mean() * 100
        loss = nn.functional.cross_entropy(logits.to(images.dtype), labels, label_smoothing=label_smoothing)
        return loss, {"top1_error": wrong}

    return compute


def _loader(
    dataset: ClassificationDataset, data: ClassificationData, colors: PixelStatistics | None
) -> Callable[[SampleKey], tuple[Tensor, int, Tensor]]:
    """Makes a training sample of its key: picture, label and colour shift (zero without `colors`)."""
    augment = _augmentation(data)
    transform = NamedTransforms(data.transforms)
    directions = np.zeros((3, 3)) if colors is None else colors.color_directions
    size = data.input_size

    def load(key: SampleKey) -> tuple[Tensor, int, Tensor]:
        picture = dataset.picture(key.index)
        rng = np.random.default_rng(key.seed)
        try:
            pixels = augment(picture, rng)
        except DataError as error:
            raise DataError(f"{dataset.name(key.index)}: {error}") from error
        height, width = pixels.shape[:2]
        if (height, width) != (size, size):
            raise DataError(
                f"{dataset.name(key.index)}: a picture of {width}x{height}, data.input_size is {size}: "
                "choose a data.augmentation that crops"
            )
        shift = directions @ rng.normal(0, _COLOR_DEVIATION, 3)
        pixels = transform(pixels, derive_seed(key.seed, 1))
        return torch.from_numpy(np.array(pixels)), int(dataset.labels[key.index]), torch.from_numpy(shift).float()

    return load


def _collate(samples: list[tuple[Tensor, int, Tensor]]) -> Batch:
    images, labels, shifts = zip(*samples, strict=True)
    return Batch(torch.stack(images), torch.tensor(labels), torch.stack(shifts))


def _build(
    config: PretrainConfig,
    metadata: WeightsMetadata,
    origin: tuple[dict[str, Tensor], WeightsMetadata] | None,
    world: World,
) -> StagedNetwork:
    check_options(config.model.options, "model.options")
    model = get_model(config.model.name, len(metadata.classes), **metadata.options)
    if origin is not None:
        state, given = origin
        if given.task != "classification":
            raise CheckpointError(f"{config.weights}: holds a {given.task} network, not a classifier")
        if given.classes != metadata.classes:
            last = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
            state |= {name: tensor for name, tensor in model.state_dict().items() if name.startswith(f"{last}.")}
        load_state(model, state, str(config.weights))
    if config.model.freeze_stages and origin is None:
        raise ConfigError("model.freeze_stages: new weights can't be fixed; name --weights to start from")
    model.freeze(config.model.freeze_stages)
    model.to(world.device, parameter_dtype(config.precision)).to(memory_format=torch.channels_last)
    if config.sync_bn:
        if world.device.type != "cuda" or world.size == 1:
            raise ConfigError("sync_bn: needs several processes on GPUs; leave it off")
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model


def _describe(
    model: StagedNetwork, config: PretrainConfig, train_set: ClassificationDataset, test_set: ClassificationDataset
) -> str:
    text = (
        f"{config.model.name}: {sum(p.numel() for p in model.parameters()):,} parameters; "
        f"{len(train_set):,} training and {len(test_set):,} test pictures of {len(train_set.class_names)} classes"
    )
    return f"{text}; starts from {config.weights}\n{model.describe_parameters()}" if config.weights else text


def _augmentation(data: ClassificationData) -> Augmentation:
    match data.augmentation:
        case "scale_crop_flip":
            return ScaleCropFlip(data.input_size, *data.scale_range)
        case "random_resized_crop":
            return RandomResizedCrop(data.input_size, *data.area_range)
        case "pad_crop_flip":
            return PadCropFlip(data.input_size, data.padding)
        case "flip":
            return Flip()
        case "none":
            return lambda picture, rng: np.asarray(picture)


def _statistics(data: ClassificationData, train_set: ClassificationDataset, *, shown: bool) -> PixelStatistics | None:
    """The training set's, where the configuration wants them: from its file for folders, computed for small sets."""
    if not (isinstance(data.mean, str) or data.color == "pca"):
        return None
    if data.name != "folder":
        return compute_statistics(train_set, size=data.input_size, shorter=data.test_resize, workers=0, progress=shown)
    path = statistics_path(str(data.root), data.input_size)
    command = (
        f"python tools/prepare_data.py statistics --root {data.root} --split {data.train_split} "
        f"--input_size {data.input_size} --resize {data.test_resize}"
    )
    if not path.is_file():
        raise DataError(f"{path}: no such file (data.mean, data.color want it); make it with {command}")
    statistics = load_statistics(path)
    if statistics.fingerprint != train_set.fingerprint():
        raise DataError(
            f"{path}: is of other pictures than those of {data.train_split} now; make it anew with {command}"
        )
    return statistics


def _normalization(
    data: ClassificationData, statistics: PixelStatistics | None, origin: WeightsMetadata | None
) -> tuple[list, list[float]]:
    """Mean and deviation of the input: what the configuration says, else the given weights' own, else ImageNet's."""
    std = data.std or (origin.std if origin else list(IMAGENET_STD))
    if isinstance(data.mean, list):
        return data.mean, std
    if data.mean is None:
        mean = origin.mean if origin else list(IMAGENET_MEAN)
        if isinstance(mean[0], list) and len(mean[0]) != data.input_size:  # per pixel, of another size
            mean = np.array(mean).mean((1, 2)).tolist()
        return mean, std
    assert statistics is not None
    values = statistics.mean_picture if data.mean == "pixel" else statistics.mean
    return values.round(3).tolist(), std


def _use_exact_batch_norm(
    config: PretrainConfig,
    world: World,
    model: nn.Module,
    samples: int,
    load: Callable[[SampleKey], Any],
    prepare_input: Callable[[Batch], Tensor],
) -> None:
    """Measures batch norm's statistics on one pass over the training set, augmented as in training."""
    if not config.exact_bn:
        return
    options = config.train
    sampler = StepSampler(
        samples,
        batch_size=options.batch_size,
        accumulate=options.accumulate,
        start_step=0,
        steps=max(1, samples // options.batch_size),
        seed=derive_seed(config.seed, -2),
        rank=world.rank,
        world_size=world.size,
    )
    batches = training_batches(
        load, sampler, workers=options.workers, collate=_collate, pin_memory=world.device.type == "cuda"
    )
    bar = progress_bar(batches, total=len(sampler), unit="batch", description="batch norm", shown=world.is_main)
    with autocast(config.precision, world.device):
        average_batch_norm(model, map(prepare_input, bar))


def _curve_values(results: dict[str, Any]) -> dict[str, float]:
    return results.get("center") or next(iter(results.values()))


def main(argv: Sequence[str] | None = None) -> None:
    """The command `pretrain`."""
    run_command(PretrainConfig, pretrain, defaults=recipe_defaults, argv=argv)


if __name__ == "__main__":
    main()
