"""Training classifiers. Also the command `pretrain`."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from backbones.cli import run_command
from backbones.config import ClassificationData, PretrainConfig, check_data, check_options
from backbones.data.augment import Augmentation, Flip, PadCropFlip, ScaleCropFlip
from backbones.data.datasets import ClassificationDataset
from backbones.data.readers import mean_picture, read_split
from backbones.data.sampler import SampleKey
from backbones.engine.acceleration import parameter_dtype
from backbones.engine.distributed import World, join_world
from backbones.engine.loop import ComputeLoss
from backbones.errors import ConfigError, DataError
from backbones.evaluate import format_errors, normalize, test_classifiers
from backbones.models import StagedNetwork, get_model
from backbones.training import fit, prepare
from backbones.weights import WeightsMetadata, load_state, load_weights, save_weights


def pretrain(config: PretrainConfig) -> dict[str, Any] | None:
    """Trains and tests a classifier; leaves a run folder.

    Returns:
        The results, in the main process.

    Raises:
        UserError: configuration, data, weights or output can't be used.
    """
    with join_world(config.device) as world:
        prepare(config, world)
        check_data(config.data)
        data = config.data
        train_set = read_split(data.name, data.root, data.train_split, None, data.input_size, data.train_size)
        test_set = read_split(
            data.name, data.root, data.test_split, train_set.class_names, data.input_size, data.test_size
        )
        metadata = WeightsMetadata(
            task="classification",
            architecture=config.model.name,
            options=dict(config.model.options),
            classes=train_set.class_names,
            mean=_mean(data, train_set),
            std=data.std,
            input_size=data.input_size,
            test_resize=data.test_resize,
        )
        model = _build(config, metadata, world)
        return fit(
            config,
            world,
            model,
            description=f"{config.model.name}: {sum(p.numel() for p in model.parameters()):,} parameters; "
            f"{len(train_set):,} training and {len(test_set):,} test pictures of {len(train_set.class_names)} classes",
            samples=len(train_set),
            fingerprint=train_set.fingerprint(),
            load=_loader(train_set, _augmentation(data), data.input_size),
            collate=_collate,
            compute_loss=classification_loss(metadata, world.device, parameter_dtype(config.precision)),
            test=lambda: test_classifiers(
                [(model, metadata)], test_set, ["center"], world=world, batch_size=64, workers=config.train.workers
            ),
            curve_values=lambda results: results["center"],
            save=lambda path: save_weights(path, model.state_dict(), metadata),
            format_results=format_errors,
        )


def _loader(
    dataset: ClassificationDataset, augment: Augmentation, size: int
) -> Callable[[SampleKey], tuple[Tensor, int]]:
    def load(key: SampleKey) -> tuple[Tensor, int]:
        picture = dataset.picture(key.index)
        try:
            pixels = augment(picture, np.random.default_rng(key.seed))
        except DataError as error:
            raise DataError(f"{dataset.name(key.index)}: {error}") from error
        height, width = pixels.shape[:2]
        if (height, width) != (size, size):
            raise DataError(
                f"{dataset.name(key.index)}: a picture of {width}x{height}, data.input_size is {size}: "
                "choose a data.augmentation that crops"
            )
        return torch.from_numpy(np.array(pixels)), int(dataset.labels[key.index])

    return load


def classification_loss(metadata: WeightsMetadata, device: torch.device, dtype: torch.dtype) -> ComputeLoss:
    """Cross-entropy of a batch (uint8 pictures (B, H, W, 3), labels (B,)) and its top-1 error in percent."""
    mean, std = (torch.tensor(value, dtype=dtype, device=device) for value in (metadata.mean, metadata.std))

    def compute(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        images, labels = (tensor.to(device, non_blocking=True) for tensor in batch)
        logits = model(normalize(images, mean, std))
        wrong = (logits.detach().argmax(1) != labels).double().mean() * 100
        return nn.functional.cross_entropy(logits.to(dtype), labels), {"top1_error": wrong}

    return compute


def _collate(samples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    images, labels = zip(*samples, strict=True)
    return torch.stack(images), torch.tensor(labels)


def _build(config: PretrainConfig, metadata: WeightsMetadata, world: World) -> StagedNetwork:
    check_options(config.model.options, "model.options")
    model = get_model(config.model.name, len(metadata.classes), **metadata.options)
    if config.weights:
        state, origin = load_weights(config.weights)
        if origin.classes != metadata.classes:
            last = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
            state |= {name: tensor for name, tensor in model.state_dict().items() if name.startswith(f"{last}.")}
        load_state(model, state, config.weights)
    model.to(world.device, parameter_dtype(config.precision)).to(memory_format=torch.channels_last)
    if config.sync_bn:
        if world.device.type != "cuda" or world.size == 1:
            raise ConfigError("sync_bn: needs several processes on GPUs; leave it off")
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model


def _augmentation(data: ClassificationData) -> Augmentation:
    if data.augmentation == "scale_crop_flip":
        return ScaleCropFlip(data.input_size, *data.scale_range)
    if data.augmentation == "pad_crop_flip":
        return PadCropFlip(data.input_size, data.padding)
    return Flip() if data.augmentation == "flip" else lambda picture, rng: np.asarray(picture)


def _mean(data: ClassificationData, train_set: ClassificationDataset) -> list:
    if isinstance(data.mean, list):
        return data.mean
    mean = mean_picture(train_set)
    if data.mean == "channel":
        return mean.mean((1, 2)).round(3).tolist()
    if mean.shape[1:] != (data.input_size, data.input_size):
        raise ConfigError(f"data.mean pixel: is {mean.shape[2]}x{mean.shape[1]}, data.input_size {data.input_size}")
    return mean.round(3).tolist()


def main(argv: Sequence[str] | None = None) -> None:
    """The command `pretrain`."""
    run_command(PretrainConfig, pretrain, argv=argv)


if __name__ == "__main__":
    main()
