"""Every file under configs/localisation: read by its command's parser, buildable, and true to the paper."""

from pathlib import Path

import pytest
import torch

from backbones.cli import read_options
from backbones.config import check_optimizer
from backbones.engine.loop import portion_size
from backbones.engine.schedule import check_schedule
from backbones.weights import WeightsMetadata
from detection.localisation.config import LocaliserConfig, check_data, default_scales
from detection.localisation.weights import build_localiser, build_regions, localiser_metadata, region_metadata

FOLDER = Path(__file__).parents[2] / "configs/localisation"
FILES = sorted(FOLDER.glob("*.yaml"))


def read(name: str) -> LocaliserConfig:
    return read_options(LocaliserConfig, argv=["--config", str(FOLDER / f"{name}.yaml"), "--data.root", "somewhere"])


@pytest.mark.parametrize("name", [file.stem for file in FILES])
def test_values_make_sense_and_the_network_can_be_built(name: str) -> None:
    config = read(name)
    check_data(config.data)
    check_optimizer(config.optimizer)
    check_schedule(config.schedule)
    portion_size(config.train, 1)
    assert all(milestone < config.train.steps for milestone in config.schedule.milestones)
    backbone = WeightsMetadata(
        *("classification", str(config.backbone.name), dict(config.backbone.options), ["a", "b"]),
        *([0.0] * 3, [1.0] * 3, 224),
    )
    common = {"norm": config.backbone.norm, "freeze_stages": config.backbone.freeze_stages}
    if config.part == "rcnn":
        metadata = region_metadata(backbone, ["a", "b"], **common, options=config.regions)  # type: ignore[arg-type]
        with torch.device("meta"):
            network = build_regions(metadata)
        assert network.box.weight.shape == (2, 4, network.backbone.num_features)
        return
    metadata = localiser_metadata(
        *(backbone, ["a", "b"]),
        **common,  # type: ignore[arg-type]
        anchor_scales=config.anchors.scales,
        anchor_ratios=config.anchors.ratios,
        options=config.rpn,
        crop_size=config.data.crop_size,
        shorter=config.data.test_resize,
    )
    with torch.device("meta"):
        assert build_localiser(metadata).rpn.box.weight.shape == (2, 4 * 9, config.rpn.channels)


def test_the_papers_recipe() -> None:
    rpn, rcnn = read("resnet101_rpn"), read("resnet101_rcnn")
    assert (rpn.part, rcnn.part) == ("rpn", "rcnn")
    assert (rpn.data.crop_size, rpn.data.scale_range, rpn.data.test_resize) == (224, (256, 480), 256)
    assert rcnn.regions.size == 224
    for config in (rpn, rcnn):
        assert config.backbone.name == "resnet101"
        assert config.backbone.freeze_stages == []
        assert config.train.batch_size == 256
    assert rpn.data.flip
    assert (rpn.rpn.stage, rpn.rpn.anchors_per_image, rpn.rpn.positive_fraction) == ("conv5", 8, 0.5)
    assert rcnn.regions.proposals == 200
    assert default_scales(224) == [224, 256, 320]
    expected = {item.metric: item.value for item in (*rpn.expected, *rcnn.expected)}
    assert expected == {
        "center.own_class_error": 13.3,
        "dense.own_class_error": 11.7,
        "dense.top5_localisation_error": 14.4,
        "dense_rcnn.top5_localisation_error": 10.6,
    }


def test_the_small_recipes_go_together() -> None:
    rpn, rcnn = read("pasted_resnet18_w16"), read("pasted_resnet18_w16_rcnn")
    assert (rpn.part, rcnn.part) == ("rpn", "rcnn")
    assert rpn.backbone == rcnn.backbone
