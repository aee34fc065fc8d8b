"""Training classifiers. Also the command `pretrain`."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from backbones.cli import run_command
from backbones.config import ClassificationData, PretrainConfig, Protocol, check_data, check_options
from backbones.data.datasets import ClassificationDataset
from backbones.data.readers import read_split
from backbones.data.sampler import StepSampler
from backbones.data.shards.cache import describe_small_cache
from backbones.data.shards.order import shard_order
from backbones.engine.acceleration import autocast, parameter_dtype
from backbones.engine.batch_norm import average_batch_norm
from backbones.engine.distributed import World, join_world
from backbones.engine.prefetch import prefetch
from backbones.engine.randomness import derive_seed
from backbones.engine.step import ComputeLoss
from backbones.errors import CheckpointError, ConfigError
from backbones.evaluate import format_errors, test_classifiers
from backbones.fidelity import format_departures, recipe_defaults, resolve
from backbones.inputs import (
    PrepareInput,
    TrainingInput,
    choose_normalization,
    input_fingerprint,
    training_input,
    training_statistics,
)
from backbones.models import StagedNetwork, get_model
from backbones.models.dense import check_dense
from backbones.progress import progress_bar
from backbones.training import fit, prepare
from backbones.weights import WeightsMetadata, check_same_network, load_state, load_weights, save_weights

_TEST_PIXELS = 2**19  # of the pictures that are tested at a time, but 64 at least


def pretrain(config: PretrainConfig) -> dict[str, Any] | None:
    """Trains and tests a classifier; leaves a run folder.

    Returns:
        The results, in the main process.

    Raises:
        UserError: configuration, data, weights or output can't be used.
    """
    with join_world(config.device, config.timeout_minutes) as world:
        config = resolve(config)
        prepare(config, world)
        check_data(config.data)
        check_test(config)
        data = config.data
        train_set, test_set = _read_data(data)
        origin = _origin(config)
        statistics = training_statistics(data, train_set, shown=world.is_main)
        mean, std = choose_normalization(data, statistics, origin[1] if origin else None)
        metadata = WeightsMetadata(
            task="classification",
            architecture=config.model.name,
            options=(origin[1].options if origin else {}) | config.model.options,
            classes=train_set.class_names,
            mean=mean,
            std=std,
            input_size=data.input_size,
            test_resize=data.test_resize,
        )
        model = _build(config, metadata, origin, world)
        if "multiscale" in config.protocol:
            check_dense(model, data.input_size)
        source = training_input(
            train_set,
            data,
            statistics,
            metadata,
            workers=config.train.workers,
            device=world.device,
            dtype=parameter_dtype(config.precision),
        )

        def test(protocols: list[Protocol]) -> dict[str, Any]:
            return test_classifiers(
                [(model, metadata)],
                test_set,
                protocols,
                world=world,
                batch_size=max(64, _TEST_PIXELS // data.input_size**2),
                workers=config.train.workers,
                precision=config.precision,
            )

        return fit(
            config,
            world,
            model,
            description="\n".join(
                [
                    _describe(model, config, train_set, test_set),
                    format_departures(config),
                    *_describe_cache(config, train_set, world),
                ]
            ),
            samples=len(train_set),
            fingerprint=input_fingerprint(train_set, statistics, mean, std),
            batches=source.batches,
            compute_loss=classification_loss(source.prepare, config.label_smoothing),
            test=lambda: test(list(dict.fromkeys(["center", *config.protocol]))),
            monitor=lambda: test(["center"]),
            curve_values=lambda results: results["center"],
            save=lambda path: save_weights(path, model.state_dict(), metadata),
            format_results=format_errors,
            name_sample=train_set.name,
            watch="top1_error",
            official_data=train_set.official,
            order=_order(config, train_set, config.seed),
            finish=lambda: _use_exact_batch_norm(config, world, model, metadata, train_set, source),
        )


def _read_data(data: ClassificationData) -> tuple[ClassificationDataset, ClassificationDataset]:
    """The training and the test set, of the same classes."""

    def read(split: str, classes: list[str] | None, drawn: int) -> ClassificationDataset:
        return read_split(
            data.name,
            data.root,
            split,
            classes,
            data.input_size,
            drawn,
            official=data.official,
            cache=data.cache,
            cache_gigabytes=data.cache_gigabytes,
        )

    train_set = read(data.train_split, None, data.train_size)
    return train_set, read(data.test_split, train_set.class_names, data.test_size)


def _order(config: PretrainConfig, train_set: ClassificationDataset, seed: int) -> Callable[[int], Tensor] | None:
    """The order of training on shards; None for the plain shuffle."""
    if train_set.pictures_by_shard is None:
        return None
    return partial(
        shard_order,
        torch.from_numpy(train_set.pictures_by_shard),
        seed=seed,
        batch_size=config.train.batch_size,
        streams=config.data.shard_streams,
        window=config.data.shard_window,
    )


def check_test(config: PretrainConfig) -> None:
    """Refuses a loss, list of protocols or name of weights that makes no sense.

    Raises:
        ConfigError: names the key.
    """
    if config.weights is not None and not config.weights.strip():
        raise ConfigError("weights: is empty; name a run folder or weights file, or leave it out")
    if not 0 <= config.label_smoothing < 1:
        raise ConfigError(f"label_smoothing {config.label_smoothing}: give a number from 0 to below 1")
    if not config.protocol:
        raise ConfigError("protocol: name one or more")


def classification_loss(prepare_input: PrepareInput, label_smoothing: float = 0.0) -> ComputeLoss:
    """Cross-entropy of a batch, and its top-1 error in percent."""

    def compute(model: nn.Module, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        images, labels = prepare_input(batch)
        logits = model(images)
        wrong = (logits.detach().argmax(1) != labels).double().mean() * 100
        loss = nn.functional.cross_entropy(logits.to(images.dtype), labels, label_smoothing=label_smoothing)
        return loss, {"top1_error": wrong}

    return compute


def _origin(config: PretrainConfig) -> tuple[dict[str, Tensor], WeightsMetadata] | None:
    """The weights to start from, which must be those of the network that is asked for."""
    if not config.weights:
        return None
    check_options(config.model.options, "model.options")
    state, metadata = load_weights(config.weights)
    if metadata.task != "classification":
        raise CheckpointError(
            f"{config.weights}: holds a {metadata.task} network, not a classifier: name a run of pretrain.py"
        )
    check_same_network(config.weights, metadata, config.model.name, config.model.options, "model")
    return state, metadata


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
        if given.classes != metadata.classes:
            last = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
            state |= {name: tensor for name, tensor in model.state_dict().items() if name.startswith(f"{last}.")}
        load_state(model, state, str(config.weights))
    if config.model.freeze_stages and origin is None:
        raise ConfigError("model.freeze_stages: new weights can't be fixed; name --weights to start from")
    model.freeze(config.model.freeze_stages)
    if config.model.recompute:
        if config.train.capture and metadata.options.get("dropout"):
            raise ConfigError("train.capture: not with model.recompute and dropout, whose draws a graph can't repeat")
        model.recompute(config.model.recompute)
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
    if train_set.official is False:
        text += (
            "\nthe files are not the published ones (by their md5): errors on them can't be compared with the paper's"
        )
    return f"{text}; starts from {config.weights}\n{model.describe_parameters()}" if config.weights else text


def _describe_cache(config: PretrainConfig, train_set: ClassificationDataset, world: World) -> list[str]:
    """A line, if the cache is too small for the streams of this machine."""
    data, sizes = config.data, train_set.shard_sizes
    if sizes is None or data.cache is None:
        return []
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # processes of this machine, as torchrun has it
    streams = -(-min(data.shard_streams, len(sizes), config.train.batch_size) * here // world.size)
    return describe_small_cache(data.cache_gigabytes, sizes.tolist(), streams * (data.shard_window + 1))


def _use_exact_batch_norm(
    config: PretrainConfig,
    world: World,
    model: StagedNetwork,
    metadata: WeightsMetadata,
    train_set: ClassificationDataset,
    source: TrainingInput,
) -> None:
    """Measures batch norm's statistics on one pass over the training set, augmented as in training; notes it."""
    if not config.exact_bn:
        return
    options, seed = config.train, derive_seed(config.seed, -2)
    sampler = StepSampler(
        len(train_set),
        batch_size=options.batch_size,
        accumulate=options.accumulate,
        start_step=0,
        steps=max(1, len(train_set) // options.batch_size),
        seed=seed,
        rank=world.rank,
        world_size=world.size,
        order=_order(config, train_set, seed),
    )
    batches = prefetch(source.batches(sampler), world.device)
    bar = progress_bar(batches, total=len(sampler), unit="batch", description="batch norm", shown=world.is_main)
    with autocast(config.precision, world.device):
        measured = average_batch_norm(model, (source.prepare(batch)[0] for batch in bar))
    if measured and not model.frozen_stages:  # fixed stages keep what they came with
        metadata.batch_norm = "exact"


def main(argv: Sequence[str] | None = None) -> None:
    """The command `pretrain`."""
    run_command(PretrainConfig, pretrain, defaults=recipe_defaults, argv=argv)


if __name__ == "__main__":
    main()
