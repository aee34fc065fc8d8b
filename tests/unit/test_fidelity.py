"""Recipes: the paper's, the modern one, what departs, and scaled batches."""

from typing import Any

import pytest

from backbones.cli import run_command
from backbones.config import ModelConfig, PretrainConfig
from backbones.engine.loop import TrainOptions
from backbones.engine.schedule import check_schedule
from backbones.errors import ConfigError
from backbones.fidelity import departures, format_departures, recipe_defaults, resolve


def read(*argv: str) -> PretrainConfig:
    configs: list[Any] = []
    run_command(PretrainConfig, configs.append, defaults=recipe_defaults, argv=argv)
    return resolve(configs[0])


@pytest.mark.parametrize("name", ["plain34", "resnet50", "vgg16", "cifar_resnet20", "cifar_resnet1202"])
def test_the_papers_recipe_departs_in_nothing(name: str) -> None:
    assert departures(read("--fidelity", "paper", "--model.name", name)) == []


def test_the_papers_numbers() -> None:
    """Section 3.4; VGG's own; Section 4.2."""
    resnet, vgg, cifar = (
        read("--fidelity", "paper", "--model.name", name) for name in ("resnet50", "vgg16", "cifar_resnet56")
    )
    for config, steps, batch, lr, decay in [
        (resnet, 600_000, 256, 0.1, 1e-4),
        (vgg, 370_000, 256, 0.01, 5e-4),
        (cifar, 64_000, 128, 0.1, 1e-4),
    ]:
        assert (config.train.steps, config.train.batch_size) == (steps, batch)
        assert (config.optimizer.lr, config.optimizer.momentum, config.optimizer.weight_decay) == (lr, 0.9, decay)
    assert (resnet.data.scale_range, resnet.data.mean, resnet.data.color) == ((256, 480), "pixel", "pca")
    assert (resnet.schedule.name, resnet.schedule.factor, resnet.exact_bn) == ("plateau", 0.1, True)
    assert (cifar.schedule.milestones, cifar.data.augmentation) == ([32_000, 48_000], "pad_crop_flip")


@pytest.mark.parametrize(
    ("name", "warmup"),
    [("resnet56", "linear"), ("plain110", "linear"), ("resnet110", "error"), ("resnet1202", "error")],
)
def test_the_deepest_cifar_networks_warm_up_until_the_error_is_below_80_percent(name: str, warmup: str) -> None:
    """4.2: 0.01 until then, about 400 iterations; afterwards 0.1, and the rest of the schedule as for the others."""
    schedule = read("--fidelity", "paper", "--model.name", f"cifar_{name}").schedule
    assert (schedule.warmup, schedule.warmup_steps, schedule.milestones) == (warmup, 0, [32_000, 48_000])
    if warmup == "error":
        assert (schedule.warmup_factor, schedule.warmup_error) == (0.1, 80)
        fixed = ["--schedule.warmup", "constant", "--schedule.warmup_steps", "400"]
        assert departures(read("--fidelity", "paper", "--model.name", f"cifar_{name}", *fixed)) == [
            "schedule.warmup: constant (paper: error)",
            "schedule.warmup_steps: 400 (paper: 0)",
        ]


@pytest.mark.parametrize("name", ["resnet50", "cifar_resnet20", "cifar_resnet110", "cifar_resnet1202"])
@pytest.mark.parametrize("fidelity", ["paper", "modern"])
def test_every_recipes_schedule_makes_sense(fidelity: str, name: str) -> None:
    check_schedule(read("--fidelity", fidelity, "--model.name", name).schedule)


def test_small_pictures_live_on_the_device_unless_their_data_can_not() -> None:
    assert read("--fidelity", "paper", "--model.name", "cifar_resnet20").data.resident
    assert not read("--fidelity", "paper", "--model.name", "cifar_resnet20", "--data.name", "shapes").data.resident
    assert not read("--fidelity", "paper", "--model.name", "resnet18").data.resident


def test_options_of_cifar_networks_that_are_not_the_papers_are_listed() -> None:
    options = "{block_layers: 3, dropout: 0.1, norm: none}"
    assert departures(read("--fidelity", "paper", "--model.name", "cifar_resnet56", "--model.options", options)) == [
        "model.options.block_layers: 3 (paper: 2)",
        "model.options.dropout: 0.1 (paper: 0.0)",
        "model.options.norm: none (paper: batch)",
    ]


def test_what_is_said_counts_and_is_listed() -> None:
    config = read(
        *("--fidelity", "paper", "--optimizer.lr", "0.2", "--data.std", "[58, 57, 57]"),
        *("--model.options", "{width: 16, stride_in: 3x3}"),
    )
    assert config.train.steps == 600_000
    assert departures(config) == [
        "data.std: [58.0, 57.0, 57.0] (paper: [1.0, 1.0, 1.0])",
        "optimizer.lr: 0.2 (paper: 0.1)",
        "model.options.width: 16 channels in conv1",
        "model.options.stride_in: 3x3 (paper: 1x1)",
    ]
    assert format_departures(config).splitlines()[0] == "recipe: departs from the paper's in 4:"


def test_more_that_departs() -> None:
    def only(name: str, *arguments: str) -> list[str]:
        return departures(read("--fidelity", "paper", "--model.name", name, *arguments))

    assert only("vgg16_bn", "--model.options", "{dropout: 0}") == [
        "model.name: vgg16_bn has batch norm (paper: none)",
        "model.options.dropout: 0 (paper: 0.5)",
    ]
    assert only("resnet50", "--model.options", "{shortcut: A}") == ["model.options.shortcut: A (paper: B)"]
    assert only("resnet34", "--model.options", "{shortcut: A}") == []  # one of the paper's three
    assert only("cifar_resnet20", "--model.options", "{shortcut: C}") == ["model.options.shortcut: C (paper: A)"]
    assert only("resnet50", "--precision", "bf16") == ["precision: bf16 (paper: fp32)"]


def test_steps_that_follow_from_steps() -> None:
    short = ("--train.steps", "10000")
    assert read("--fidelity", "modern", *short).schedule.warmup_steps == 500
    assert read("--fidelity", "modern", *short, "--schedule.warmup_steps", "7").schedule.warmup_steps == 7
    config = read("--fidelity", "paper", "--schedule.name", "step", *short)
    assert config.schedule.milestones == [2500, 5000, 7500]


def test_given_weights_bring_their_mean_and_network() -> None:
    config = read("--fidelity", "modern", "--weights", "somewhere")
    assert (config.data.mean, config.data.std, config.model.options) == (None, None, {})
    assert read("--fidelity", "paper", "--weights", "somewhere").data.std is None


def test_the_modern_recipe() -> None:
    config = read("--fidelity", "modern", "--model.options", "{width: 32}")
    assert config.model.options == {"width": 32, "stride_in": "3x3", "zero_init_residual": True}
    assert (config.data.augmentation, config.schedule.name) == ("random_resized_crop", "cosine")
    assert (config.label_smoothing, config.train.ema_decay) == (0.1, 0.9999)
    assert config.schedule.warmup_steps == 30_000
    text = format_departures(config)
    for key in ("stride_in", "zero_init_residual", "schedule.name", "label_smoothing", "ema_decay", "augmentation"):
        assert key in text
    # Networks without the options don't get them.
    assert read("--fidelity", "modern", "--model.name", "plain18").model.options == {}
    assert read("--fidelity", "modern", "--model.name", "vgg16").model.options == {}
    assert read("--fidelity", "modern", "--model.name", "resnet18").model.options == {"zero_init_residual": True}
    assert read("--fidelity", "modern", "--model.options", "{stride_in: 1x1}").model.options["stride_in"] == "1x1"


def test_a_scaled_batch_sees_as_many_pictures() -> None:
    config = read("--fidelity", "paper", "--scale_batch", "4")
    assert (config.train.batch_size, config.train.steps, config.optimizer.lr) == (1024, 150_000, 0.4)
    assert (config.schedule.plateau_window, config.train.log_every) == (1250, 25)
    assert read("--fidelity", "modern", "--scale_batch", "2").train.ema_decay == pytest.approx(0.9999**2)
    assert config.scale_batch == 1  # what is recorded says it all
    cifar = read("--fidelity", "paper", "--model.name", "cifar_resnet20", "--scale_batch", "0.5")
    assert cifar.schedule.warmup_window == 200
    assert (cifar.train.batch_size, cifar.schedule.milestones, cifar.optimizer.lr) == (64, [64_000, 96_000], 0.05)


@pytest.mark.parametrize("scale", [0, -1, 0.3, float("inf"), float("nan")])
def test_a_batch_that_can_not_be_scaled_so(scale: float) -> None:
    with pytest.raises(ConfigError, match="scale_batch"):
        resolve(PretrainConfig(model=ModelConfig("resnet18"), train=TrainOptions(batch_size=256), scale_batch=scale))
