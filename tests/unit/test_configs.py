"""Every file under configs/: read by its own command's parser, buildable, and true to the paper."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from backbones.cli import run_command
from backbones.config import Expected, PretrainConfig, check_data, check_optimizer, check_options
from backbones.engine.loop import portion_size
from backbones.engine.schedule import check_schedule
from backbones.evaluate import EvaluateConfig
from backbones.fidelity import recipe_defaults
from backbones.models import get_model
from backbones.train import main as pretrain_main
from detection import get_detector
from detection.alternating import STAGES, stage_config
from detection.config import DetectorConfig, detector_options
from detection.config import check_data as check_detection_data
from detection.train import main as train_detector_main

CONFIGS = Path(__file__).parents[2] / "configs"
ENSEMBLE = CONFIGS / "imagenet/ensemble.yaml"  # of evaluate_classifier; all others train
TABLES = CONFIGS / "paper.yaml"  # of reproduce: no experiment, but a list of them
COMPARISONS = {*CONFIGS.glob("tables/*.yaml"), CONFIGS / "bccd/ablation.yaml"}  # of compare_detectors
LOCALISATION = set((CONFIGS / "localisation").glob("*.yaml"))  # see test_localisation_configs.py
FILES = sorted(set(CONFIGS.rglob("*.yaml")) - {ENSEMBLE, TABLES} - COMPARISONS - LOCALISATION)
# The paper's numbers: percent.
PAPER = {
    "voc/vgg16": {"voc07.mAP": 73.2},
    "voc/resnet101": {"voc07.mAP": 76.4},
    "coco/vgg16": {"coco.AP50": 41.5, "coco.AP": 21.2},
    "coco/resnet101": {"coco.AP50": 48.4, "coco.AP": 27.2},
    "voc/vgg16_alternating": {"voc07.mAP": 73.2},
    "voc/resnet101_alternating": {"voc07.mAP": 76.4},
    "coco/vgg16_alternating": {"coco.AP50": 41.5, "coco.AP": 21.2},
    "coco/resnet101_alternating": {"coco.AP50": 48.4, "coco.AP": 27.2},
    "coco/resnet101_context": {"coco.AP50": 51.1, "coco.AP": 30.0},
    "voc/resnet101_plus_2007": {"voc07.mAP": 85.6},
    "cifar/resnet20": {"center.top1_error": 8.75},
    "cifar/resnet32": {"center.top1_error": 7.51},
    "cifar/resnet44": {"center.top1_error": 7.17},
    "cifar/resnet56": {"center.top1_error": 6.97},
    "cifar/resnet110": {"center.top1_error": 6.61},
    "cifar/resnet1202": {"center.top1_error": 7.93},
    "imagenet/plain18": {"10crop.top1_error": 27.94},
    "imagenet/plain34": {"10crop.top1_error": 28.54, "10crop.top5_error": 10.02},
    "imagenet/resnet18_a": {"10crop.top1_error": 27.88},
    "imagenet/resnet34_a": {"10crop.top1_error": 25.03, "10crop.top5_error": 7.76},
    "imagenet/resnet34_b": {
        "10crop.top1_error": 24.52,
        "10crop.top5_error": 7.46,
        "multiscale.top1_error": 21.84,
        "multiscale.top5_error": 5.71,
    },
    "imagenet/resnet34_c": {
        "10crop.top1_error": 24.19,
        "10crop.top5_error": 7.4,
        "multiscale.top1_error": 21.53,
        "multiscale.top5_error": 5.6,
    },
    "imagenet/resnet50": {
        "center.top1_error": 24.7,
        "center.top5_error": 7.8,
        "10crop.top1_error": 22.85,
        "10crop.top5_error": 6.71,
        "multiscale.top1_error": 20.74,
        "multiscale.top5_error": 5.25,
    },
    "imagenet/resnet101": {
        "center.top1_error": 23.6,
        "center.top5_error": 7.1,
        "10crop.top1_error": 21.75,
        "10crop.top5_error": 6.05,
        "multiscale.top1_error": 19.87,
        "multiscale.top5_error": 4.6,
    },
    "imagenet/resnet152": {
        "center.top1_error": 23,
        "center.top5_error": 6.7,
        "10crop.top1_error": 21.43,
        "10crop.top5_error": 5.71,
        "multiscale.top1_error": 19.38,
        "multiscale.top5_error": 4.49,
    },
    "imagenet/vgg16": {"10crop.top1_error": 28.07, "10crop.top5_error": 9.33},
}

# By what follows the network in the names of configs/cifar/ablations: options, and groups unlike the paper's config.
ABLATIONS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "1layer": ({"block_layers": 1}, set()),
    "3layers": ({"block_layers": 3}, set()),
    "dropout": ({"dropout": 0.3}, set()),
    "no_bn": ({"norm": "none"}, {"data", "optimizer"}),
    "early_no_warmup": ({}, {"train", "schedule"}),
    "early_fixed_warmup": ({}, {"train", "schedule"}),
    "early_error_warmup": ({}, {"train", "schedule"}),
}
EARLY = ("steps", "log_every", "log_gradient_norm", "checkpoint_every", "evaluate_every")


def name_of(file: Path) -> str:
    return str(file.relative_to(CONFIGS).with_suffix(""))


def is_detector(file: Path) -> bool:
    return "backbone" in yaml.safe_load(file.read_text())


def read(file: Path) -> Any:
    """The resolved configuration that the command would run with."""
    configs: list[Any] = []
    if is_detector(file):
        run_command(DetectorConfig, configs.append, argv=["--config", str(file)])
    else:
        run_command(PretrainConfig, configs.append, defaults=recipe_defaults, argv=["--config", str(file)])
    (config,) = configs
    return config


def expected(config: Any) -> dict[str, Expected]:
    return {item.metric: item for item in config.expected}


def test_the_papers_configs_are_there() -> None:
    assert PAPER.keys() <= {name_of(file) for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_its_command_reads_it_back(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    main = train_detector_main if is_detector(file) else pretrain_main
    with pytest.raises(SystemExit) as exit_info:
        main(["--config", str(file), "--print_config"])
    assert exit_info.value.code == 0
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    given, printed = (yaml.safe_load(path.read_text()) for path in (file, tmp_path / "printed.yaml"))
    for group, values in given.items():
        if isinstance(values, dict):
            assert {key: printed[group][key] for key in values} == values
        else:
            assert printed[group] == values


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_values_make_sense(file: Path) -> None:
    config = read(file)
    assert config.output is None
    assert not any((config.resume, config.overwrite, config.allow_mismatch))
    check_schedule(config.schedule)
    check_optimizer(config.optimizer)
    portion_size(config.train, world_size=1)
    assert all(0 < milestone < config.train.steps for milestone in config.schedule.milestones)
    assert config.schedule.warmup_steps < config.train.steps
    assert config.train.checkpoint_every <= config.train.steps
    assert config.train.log_every <= config.train.steps
    if isinstance(config, PretrainConfig):
        check_options(config.model.options, "model.options")
        check_data(config.data)
    else:
        check_detection_data(config.data)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_its_network_can_be_built(file: Path) -> None:
    config = read(file)
    with torch.device("meta"):
        if isinstance(config, PretrainConfig):
            get_model(config.model.name, 10, **config.model.options)
            return
        detector = get_detector(
            config.backbone.name,
            20,
            backbone_options=config.backbone.options,
            **detector_options(config),
        )
    first = next(iter(detector.backbone.parameters()))
    assert first.requires_grad == ("conv1" not in config.backbone.freeze_stages)


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_numbers(name: str) -> None:
    numbers = expected(read(CONFIGS / f"{name}.yaml"))
    assert {metric: item.value for metric, item in numbers.items()} == PAPER[name]
    for item in numbers.values():
        assert 0 < item.tolerance <= 1
        assert item.source


PAPERS_DETECTORS = [f for f in FILES if f.parent.name in ("voc", "coco")]
# Steps, milestones and batch of a training: (all of it, or of Fast R-CNN's steps), (of the RPN's steps, or nothing).
SCHEDULES = {
    "voc": ((110_000, [80_000], 2), None),
    "voc_2012": ((143_000, [104_000], 2), None),
    "voc_2007": ((70_000, [50_000], 2), None),
    "voc_alternating": ((64_000, [48_000], 2), (128_000, [96_000], 1)),
    "voc_2007_alternating": ((40_000, [30_000], 2), (80_000, [60_000], 1)),
    "coco": ((320_000, [240_000], 16), None),
    "coco_alternating": ((320_000, [240_000], 16), (320_000, [240_000], 8)),
    "coco_context": ((320_000, [240_000], 16), None),
    "coco_context_trainval": ((320_000, [240_000], 16), None),
    "voc_plus_2007": ((110_000, [80_000], 2), None),
    "voc_plus_2012": ((143_000, [104_000], 2), None),
}
SPLITS = {
    "voc": ("07+12", "VOC2007/test"),
    "voc_2012": ("07++12", None),
    "voc_2007": ("VOC2007/trainval", "VOC2007/test"),
    "voc_alternating": ("07+12", "VOC2007/test"),
    "voc_2007_alternating": ("VOC2007/trainval", "VOC2007/test"),
    "coco": ("train2014", "val2014"),
    "coco_alternating": ("train2014", "val2014"),
    "coco_context": ("train2014", "val2014"),
    "coco_context_trainval": ("train2014+val2014", None),
    "voc_plus_2007": ("07+12", "VOC2007/test"),
    "voc_plus_2012": ("07++12", None),
}


@pytest.mark.parametrize("file", PAPERS_DETECTORS, ids=name_of)
def test_the_papers_detectors(file: Path) -> None:
    """Section 4.3 and Appendix A; Faster R-CNN's own settings where the paper says "as in Faster R-CNN"."""
    config = read(file)
    net, _, variant = file.stem.partition("_")
    kind = f"{file.parent.name}_{variant}".rstrip("_")
    coco = file.parent.name == "coco"
    assert config.backbone.name == net
    assert (config.backbone.norm, config.backbone.freeze_stages) == ("frozen", ["conv1", "conv2"])
    assert (config.data.shorter_side, config.data.longest_side, config.data.flip) == (600, 1000, True)
    assert config.anchors.scales == ([64] if coco or config.roi.context else []) + [128, 256, 512]
    assert config.anchors.ratios == [0.5, 1, 2]
    rpn, roi = config.rpn, config.roi
    assert (rpn.anchors_per_image, rpn.positive_fraction, rpn.positive_iou, rpn.negative_iou) == (256, 0.5, 0.7, 0.3)
    assert (rpn.pre_nms_train, rpn.post_nms_train, rpn.pre_nms_test, rpn.post_nms_test) == (12000, 2000, 6000, 300)
    assert (rpn.nms_iou, rpn.min_size, rpn.smooth_l1_sigma, rpn.ignore_border_anchors) == (0.7, 16, 3, True)
    assert (roi.pooling, roi.rois_per_image, roi.foreground_fraction) == ("roi_pool", 64, 0.25)
    assert (roi.background_iou_low, roi.background_iou_high, roi.foreground_iou) == (0 if coco else 0.1, 0.5, 0.5)
    assert (roi.score_threshold, roi.nms_iou, roi.detections_per_image) == (0.05, 0.3, 100)
    assert (config.optimizer.lr, config.optimizer.momentum, config.optimizer.weight_decay) == (0.001, 0.9, 5e-4)
    assert config.schedule.factor == 0.1
    assert config.optimizer.bias_lr_factor == 2  # as in all of Fast and Faster R-CNN's released settings
    assert (config.data.train_split, config.data.test_split) == SPLITS[kind]
    assert config.scheme == ("alternating" if variant.endswith("alternating") else "joint")
    whole, of_rpn = SCHEDULES[kind]
    stages = [whole] if of_rpn is None else [of_rpn, whole]
    of_steps = [config] if of_rpn is None else [stage_config(config, stage, 1) for stage in STAGES[:2]]
    assert [(c.train.steps, c.schedule.milestones, c.train.batch_size) for c in of_steps] == stages


# Detectors of Appendix B, by the one of the same data without: what differs beside context, inference and numbers.
WITH_CONTEXT = {
    "resnet101_context": ("coco/resnet101", set()),
    "resnet101_context_trainval": ("coco/resnet101", {"data"}),
    "resnet101_plus_2007": ("voc/resnet101", {"anchors"}),
    "resnet101_plus_2012": ("voc/resnet101_2012", {"anchors"}),
    "resnet18_w16_context": ("bccd/resnet18_w16", set()),
}


@pytest.mark.parametrize("name", WITH_CONTEXT)
def test_detectors_with_context_are_trained_as_those_without(name: str) -> None:
    plain_name, differing = WITH_CONTEXT[name]
    plain = read(CONFIGS / f"{plain_name}.yaml")
    config = read((CONFIGS / plain_name).with_name(f"{name}.yaml"))
    assert config.roi == replace(plain.roi, context=True)
    groups = {"roi", "inference", "expected"} | differing
    assert without(config, *groups) == without(plain, *groups)
    assert replace(config.data, train_split="", test_split="") == replace(plain.data, train_split="", test_split="")
    if name.startswith("resnet101_plus"):
        assert config.anchors == read(CONFIGS / "coco/resnet101_context_trainval.yaml").anchors


def test_the_whole_of_appendix_b_is_tested_with_its_image_pyramid() -> None:
    inference = read(CONFIGS / "voc/resnet101_plus_2007.yaml").inference
    assert (inference.refine, inference.vote, inference.scales) == (True, True, [200, 400, 600, 800, 1000])


@pytest.mark.parametrize("data", ["voc", "coco", "bccd"])
def test_vgg_and_resnet_differ_in_nothing_but_the_backbone(data: str) -> None:
    files = [file for file in FILES if file.parent.name == data and is_detector(file) and file.stem not in WITH_CONTEXT]
    pairs: dict[str, list[DetectorConfig]] = {}
    for file in files:
        config = read(file)
        pairs.setdefault(file.stem.removeprefix(config.backbone.name), []).append(config)
    for configs in pairs.values():
        assert len({config.backbone.name for config in configs}) == len(configs) == 2
        one, two = ({key: value for key, value in vars(config).items() if key != "backbone"} for config in configs)
        for config in (one, two):
            del config["expected"]
        assert one == two
        assert configs[0].backbone.freeze_stages == configs[1].backbone.freeze_stages


def test_the_papers_cifar_and_imagenet_recipes() -> None:
    """Sections 4.2 and 3.4."""
    cifar = read(CONFIGS / "cifar/resnet20.yaml")
    assert (cifar.train.steps, cifar.train.batch_size, cifar.schedule.milestones) == (64_000, 128, [32_000, 48_000])
    assert (cifar.optimizer.lr, cifar.optimizer.momentum, cifar.optimizer.weight_decay) == (0.1, 0.9, 1e-4)
    assert (cifar.data.augmentation, cifar.data.padding, cifar.data.mean) == ("pad_crop_flip", 4, "pixel")
    imagenet = read(CONFIGS / "imagenet/resnet50.yaml")
    assert (imagenet.train.steps, imagenet.train.batch_size, imagenet.optimizer.lr) == (600_000, 256, 0.1)
    assert (imagenet.data.input_size, imagenet.data.scale_range) == (224, (256, 480))
    assert imagenet.model.options == {"shortcut": "B"}
    assert get_model("resnet50").layer2[0].conv1.stride == (2, 2)  # the first 1x1, unless asked otherwise


def without(config: Any, *groups: str) -> dict[str, Any]:
    return {key: value for key, value in vars(config).items() if key not in groups}


def test_cifars_networks_are_trained_alike() -> None:
    """Table 6, Fig. 6: nothing differs but the network, and the warm-up of 110 layers and more."""
    names = {f"{kind}{depth}" for kind in ("plain", "resnet") for depth in (20, 32, 44, 56, 110)} | {"resnet1202"}
    assert {file.stem for file in (CONFIGS / "cifar").glob("*.yaml")} == names
    first = read(CONFIGS / "cifar/resnet20.yaml")
    assert first.data.resident
    for name in names:
        config = read(CONFIGS / f"cifar/{name}.yaml")
        assert without(config, "model", "expected", "schedule") == without(first, "model", "expected", "schedule"), name
        assert vars(config.model) == vars(first.model) | {"name": f"cifar_{name}"}
        assert config.schedule.milestones == [32_000, 48_000]
        warmup = (config.schedule.warmup, config.schedule.warmup_factor, config.schedule.warmup_error)
        assert (warmup == ("error", 0.1, 80)) == (name in ("resnet110", "resnet1202")), name
        assert config.schedule.warmup_steps == 0


@pytest.mark.parametrize("file", sorted((CONFIGS / "cifar/ablations").glob("*.yaml")), ids=lambda file: file.stem)
def test_a_cifar_ablation_changes_what_it_names_and_nothing_else(file: Path) -> None:
    network, _, what = file.stem.partition("_")
    config, paper = read(file), read(CONFIGS / f"cifar/{network}.yaml")
    options, groups = ABLATIONS[what]
    if file.stem == "resnet20_no_bn":
        options = options | {"zero_init_residual": True}
    assert config.model == replace(paper.model, options=options)
    differing = {key for key, value in vars(config).items() if value != getattr(paper, key)} - {"model", "expected"}
    assert differing == groups
    if groups == {"train", "schedule"}:
        assert config.schedule.milestones == []
        assert (config.train.steps, config.train.log_every, config.train.log_gradient_norm) == (2000, 10, True)
        early = replace(config.train, **{key: getattr(paper.train, key) for key in EARLY})
        assert early == paper.train
    if "data" in groups:
        assert config.data == replace(paper.data, std=config.data.std)


def test_every_ablation_is_there() -> None:
    names = {f"resnet{depth}_{layers}" for depth in (20, 56) for layers in ("1layer", "3layers")}
    names |= {f"resnet110_early_{kind}_warmup" for kind in ("no", "fixed", "error")}
    names |= {"resnet20_no_bn", "plain20_no_bn", "resnet110_dropout", "resnet1202_dropout"}
    assert {file.stem for file in (CONFIGS / "cifar/ablations").glob("*.yaml")} == names


def test_imagenettes_networks_are_trained_alike() -> None:
    """Plain against residual, A against B and C: nothing differs but the network (VGG has a recipe of its own)."""
    names = ["plain18", "plain34", *(f"resnet{d}_{s}" for d in (18, 34) for s in "abc"), "resnet50", "resnet101"]
    configs = {name: read(CONFIGS / f"imagenette/{name}.yaml") for name in names}
    first = configs["plain18"]
    for name, config in configs.items():
        assert without(config, "model", "expected") == without(first, "model", "expected"), name
        assert config.model.name == name.split("_")[0]
        if "_" in name:
            assert config.model.options == {"shortcut": name[-1].upper()}
    assert (first.data.input_size, first.data.test_resize, first.data.scale_range) == (112, 128, (128, 240))
    assert first.protocol == ["center", "10crop", "multiscale"]
    assert read(CONFIGS / "imagenette/vgg16.yaml").protocol == first.protocol


def test_the_quarter_width_networks_of_figure_4_are_trained_alike() -> None:
    names = ["plain18", "plain34", "resnet18_a", "resnet34_a"]
    configs = {name: read(CONFIGS / f"imagenette/{name}_w16.yaml") for name in names}
    for name, config in configs.items():
        assert without(config, "model", "expected") == without(configs["plain18"], "model", "expected"), name
        shortcut = {"shortcut": "A"} if name.endswith("_a") else {}
        assert (config.model.name, config.model.options) == (name.removesuffix("_a"), {"width": 16} | shortcut)


def test_from_scratch_and_fine_tuned_differ_in_their_weights_only() -> None:
    scratch, tuned = (read(CONFIGS / f"transfer/cifar10_{name}.yaml") for name in ("scratch", "finetuned"))
    assert without(scratch, "data", "expected") == without(tuned, "data", "expected")
    assert without(scratch.data, "mean", "std") == without(tuned.data, "mean", "std")
    assert tuned.data.mean is None  # that of the weights


def test_each_cell_of_tables_2_to_4_has_its_config() -> None:
    for name in ("plain18", "plain34", "resnet18_a", "resnet34_a", "resnet34_b", "resnet34_c", "vgg16"):
        assert read(CONFIGS / f"imagenet/{name}.yaml").fidelity == "paper"
    for depth in (50, 101, 152):
        config = read(CONFIGS / f"imagenet/resnet{depth}.yaml")
        assert {"10crop.top1_error", "multiscale.top5_error", "center.top1_error"} <= expected(config).keys()


def test_the_ensemble_is_of_networks_that_have_configs() -> None:
    """Table 5: six, two of them of 152 layers."""
    configs: list[Any] = []
    run_command(EvaluateConfig, configs.append, argv=["--config", str(ENSEMBLE)])
    (config,) = configs
    names = [Path(path).name.removeprefix("imagenet_").removesuffix("_seed1") for path in config.model]
    assert len(names) == 6
    assert names.count("resnet152") == 2
    assert {f"imagenet/{name}" for name in names} <= {name_of(file) for file in FILES}
    assert config.protocol == ["multiscale"]
    assert expected(config)["multiscale.top5_error"].value == 3.57
