"""The configuration of `pretrain.py`, and the parts of it that detectors share."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from backbones.data.shards.cache import check_cache
from backbones.engine.acceleration import Precision
from backbones.engine.distributed import TIMEOUT_MINUTES
from backbones.engine.loop import TrainOptions
from backbones.engine.schedule import ScheduleOptions
from backbones.errors import ConfigError
from backbones.weights import LARGEST_SIDE

Protocol = Literal["center", "10crop", "multiscale"]


@dataclass
class ModelConfig:
    """The network.

    Args:
        name: one of `backbones.list_models()`.
        options: its options: width, shortcut (A, B, C), stride_in (1x1, 3x3), zero_init_residual; of CIFAR networks
            block_layers (1, 2, 3 layers in a residual function), dropout (inside blocks), norm (batch, none).
        freeze_stages: stages (conv1 ... conv5) whose weights and batch norm stay as they are; for fine-tuning.
        recompute: so many residual blocks at a time keep only their input for the backward pass, and are computed again
            there: very deep networks then need less memory; 0 keeps everything.
    """

    name: str = "resnet50"
    options: dict[str, bool | int | float | str] = field(default_factory=dict)
    freeze_stages: list[str] = field(default_factory=list)
    recompute: int = 0


@dataclass
class OptimizerConfig:
    """SGD with momentum.

    Args:
        lr: the learning rate for `train.batch_size`.
        momentum: of the gradient's running sum.
        weight_decay: this times the weight is added to the gradient.
        bias_lr_factor: biases learn at this times the rate (2 in Fast and Faster R-CNN).
    """

    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    bias_lr_factor: float = 1.0


@dataclass
class Expected:
    """A number that the run should reach, and where it is from.

    Args:
        metric: its place in `results`, with dots: center.top1_error.
        value: the number, in the units of the results (percent).
        tolerance: how far off still counts.
        source: the paper's table, or what it was measured by.
    """

    metric: str
    value: float
    tolerance: float
    source: str


@dataclass
class ClassificationData:
    """Labelled pictures, and how they are cut.

    Args:
        name: folder (`<root>/<split>/<class>/*.JPEG`), shards (`<root>/<split>/shard-*.tar`, of `prepare_data.py
            shards`), cifar10 (`<root>/cifar-10-batches-py`) or the built-in shapes.
        root: the folder of the data; shapes need none. Of shards also a URL (s3://bucket/imagenet; s3 needs s3fs
            installed, gs gcsfs, http aiohttp).
        train_split: trained on; of CIFAR-10 train, or train45k (4.2: the rest, val5k, is what the paper chose its
            schedule on).
        test_split: tested on.
        official: refuse CIFAR-10 files that are not the published ones, by their md5 sums.
        resident: keep all pictures on the device and augment them there, whole batches at a time: the fastest way for
            pictures as small as CIFAR-10's. Order as without; crops and flips are other draws of the same distribution.
        decode: where JPEG files of folders are decoded in training: by the loading processes, or on the GPU (nvJPEG),
            which needs fewer CPU cores.
        input_size: side of the network's input in pixels.
        test_resize: shorter side before cropping in tests; null leaves pictures as they are.
        augmentation: scale_crop_flip (3.4: shorter side from scale_range, random crop), random_resized_crop
            (GoogLeNet's: a part of random area and shape), pad_crop_flip (4.2), flip or none.
        scale_range: of the shorter side, for scale_crop_flip.
        area_range: the part's share of the picture, for random_resized_crop.
        color: "pca" varies colours along the principal components of the training set's (3.4, AlexNet's), "none" does
            not.
        transforms: further augmentations of the crop, by their names in torchvision.transforms.v2:
            [{name: RandomRotation, degrees: 10}, {name: ColorJitter, brightness: 0.4}].
        padding: zeros on each side, for pad_crop_flip.
        mean: three numbers in 0..255, or "pixel" or "channel": that of the training set (of folders from the file that
            `prepare_data.py statistics` leaves); null is that of the given weights, or else ImageNet's.
        std: what channels are divided by; the paper divides by nothing: [1, 1, 1]; null as for the mean.
        cache: a folder on a local disk, which all processes of a machine share, that shards are fetched to whole
            before they are read; those behind a URL need it, those of a network file system may gain by it.
        cache_gigabytes: how much of shards may lie there; those not opened for the longest time leave. Those that are
            being fetched, or are still open, come on top.
        shard_streams: shards are read as so many streams, each by one process: at best a multiple of the processes
            times train.accumulate. The order depends on it, not on the processes.
        shard_window: over how many shards of a stream pictures are shuffled.
        train_size: how many training pictures the built-in shapes draw.
        test_size: how many test pictures they draw.
    """

    name: Literal["folder", "shards", "cifar10", "shapes"] = "folder"
    root: str | None = None
    official: bool = False
    resident: bool = False
    decode: Literal["cpu", "gpu"] = "cpu"
    train_split: str = "train"
    test_split: str = "val"
    input_size: int = 224
    test_resize: int | None = 256
    augmentation: Literal["scale_crop_flip", "random_resized_crop", "pad_crop_flip", "flip", "none"] = "scale_crop_flip"
    scale_range: tuple[int, int] = (256, 480)
    area_range: tuple[float, float] = (0.08, 1.0)
    color: Literal["pca", "none"] = "none"
    transforms: list[dict[str, Any]] = field(default_factory=list)
    padding: int = 4
    mean: Literal["pixel", "channel"] | list[float] | None = None
    std: list[float] | None = None
    cache: str | None = None
    cache_gigabytes: float = 200.0
    shard_streams: int = 8
    shard_window: int = 8
    train_size: int = 20000
    test_size: int = 1000


@dataclass(kw_only=True)
class TrainingConfig:
    """What the configurations of classifiers and detectors have in common.

    Args:
        train: how long and in which portions.
        optimizer: SGD with momentum.
        schedule: the learning rate over the steps.
        expected: the numbers that this experiment should reach.
        output: the run folder to write.
        seed: of weights, order, augmentation and sampling.
        device: auto takes a GPU where there is one.
        precision: fp32, bf16 (mixed) or fp64.
        deterministic: only deterministic algorithms.
        resume: go on with the run in `output`, if there is one.
        overwrite: replace the run in `output`.
        allow_mismatch: resume although the configuration differs from the run's.
        elastic: resume with any number of processes and threads: the same batches, dealt out anew.
        timeout_minutes: how long processes wait for one another before the run counts as broken.
    """

    train: TrainOptions = field(default_factory=TrainOptions)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)
    expected: list[Expected] = field(default_factory=list)
    output: str | None = None
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Precision = "fp32"
    deterministic: bool = False
    resume: bool = False
    overwrite: bool = False
    allow_mismatch: bool = False
    elastic: bool = False
    timeout_minutes: float = TIMEOUT_MINUTES


@dataclass(kw_only=True)
class PretrainConfig(TrainingConfig):
    """Trains a classifier from scratch, or from given weights, into a run folder.

    Under torchrun the same command trains on many GPUs. Example:
    python tools/pretrain.py --config configs/cifar/resnet20.yaml --data.root data --output runs/resnet20

    Args:
        model: the network.
        data: the pictures.
        fidelity: the recipe that options have their defaults from: "paper" (3.4; 4.2 for CIFAR networks; VGG's own) or
            "modern"; null for this command's plain defaults. What you set yourself always counts.
        scale_batch: trains with this times the batch and, by the linear scaling rule, this times the learning rate; all
            counts of steps are divided by it. The run's record holds what that gives.
        label_smoothing: the share of the target that is spread over all classes.
        exact_bn: compute batch norm's statistics over the training set when training is done, as detection wants them.
        protocol: how pictures are shown to the network in the test at the end; "center", that of the tests during
            training, is always among them.
        weights: a run folder or weights file to start from; options that are not named, and mean and deviation, are
            theirs, and the last layer starts anew where the classes differ.
        sync_bn: batch norm over the pictures of all processes (GPUs only); the paper's is per process.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    data: ClassificationData = field(default_factory=ClassificationData)
    fidelity: Literal["paper", "modern"] | None = None
    scale_batch: float = 1.0
    label_smoothing: float = 0.0
    exact_bn: bool = False
    protocol: list[Protocol] = field(default_factory=lambda: ["center"])
    weights: str | None = None
    sync_bn: bool = False


def check_options(options: Mapping[str, Any], key: str) -> None:
    """Refuses options that are arguments of `get_model` already.

    Raises:
        ConfigError: names the option.
    """
    for name in ("name", "num_classes", "norm_layer"):
        if name in options:
            raise ConfigError(f"{key}.{name}: not an option of a network; leave it out")


def check_data(data: ClassificationData) -> None:
    """Refuses sizes and normalisations that make no sense.

    Raises:
        ConfigError: names the key.
    """
    low, high = data.scale_range
    if data.input_size < 1:
        raise ConfigError(f"data.input_size {data.input_size}: give 1 or more")
    if data.test_resize is not None and data.test_resize < data.input_size:
        raise ConfigError(
            f"data.test_resize {data.test_resize}: give data.input_size {data.input_size} or more, or null"
        )
    if data.augmentation == "scale_crop_flip" and not data.input_size <= low <= high:
        raise ConfigError(f"data.scale_range {[low, high]}: must rise, from data.input_size {data.input_size} or more")
    if data.augmentation == "random_resized_crop" and not 0 < data.area_range[0] <= data.area_range[1] <= 1:
        raise ConfigError(f"data.area_range {list(data.area_range)}: must rise, above 0 and up to 1")
    if data.augmentation == "scale_crop_flip" and high > LARGEST_SIDE:
        raise ConfigError(f"data.scale_range {[low, high]}: give {LARGEST_SIDE} pixels at most")
    if (data.train_split, data.test_split) == ("train", "val5k"):
        raise ConfigError("data.test_split val5k: is a part of train; set data.train_split train45k")
    if data.padding < 0:
        raise ConfigError(f"data.padding {data.padding}: give 0 or more")
    check_cache(data.name, data.cache, data.cache_gigabytes)
    for key in ("shard_streams", "shard_window"):
        if getattr(data, key) < 1:
            raise ConfigError(f"data.{key} {getattr(data, key)}: give 1 or more")
    if isinstance(data.mean, list) and not (len(data.mean) == 3 and all(map(math.isfinite, data.mean))):
        raise ConfigError(f"data.mean {data.mean}: give three numbers")
    if data.std is not None and not (len(data.std) == 3 and all(0 < value < math.inf for value in data.std)):
        raise ConfigError(f"data.std {data.std}: give three numbers above 0")


def check_optimizer(optimizer: OptimizerConfig) -> None:
    """Refuses values that SGD can't use.

    Raises:
        ConfigError: a negative or non-finite value.
    """
    for name in ("lr", "momentum", "weight_decay", "bias_lr_factor"):
        value = getattr(optimizer, name)
        if not 0 <= value < float("inf"):
            raise ConfigError(f"optimizer.{name} {value}: give a number of 0 or more")


def compare_with_expected(results: dict[str, Any], expected: Sequence[Expected]) -> str:
    """A line for each expected number: what was expected, what was measured, whether it is inside the tolerance."""
    lines = []
    for item in expected:
        value: Any = results
        for key in item.metric.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if value is None:
            verdict = "not measured"
        else:
            verdict = f"measured {value:.2f}: {'inside' if abs(value - item.value) <= item.tolerance else 'OUTSIDE'}"
        lines.append(f"{item.metric}: expected {item.value:g} ± {item.tolerance:g} ({item.source}), {verdict}")
    return "\n".join(lines)
