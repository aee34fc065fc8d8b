"""The configuration of `train_localiser.py`."""

from dataclasses import dataclass, field
from typing import Literal

from backbones.config import OptimizerConfig, TrainingConfig
from backbones.engine.loop import TrainOptions
from backbones.errors import ConfigError
from backbones.weights import LARGEST_SIDE
from detection.config import AnchorConfig, BackboneConfig
from detection.localisation.regions import RegionOptions
from detection.localisation.rpn import ClassRPNOptions
from detection.localisation.testing import Protocol


@dataclass
class LocalisationData:
    """Pictures with boxes in ILSVRC's CLS-LOC layout, and how they are cut.

    Args:
        root: the folder of the data.
        train_split: trained on.
        test_split: tested on; null: not tested.
        test_count: at most so many of its pictures, evenly spaced; null: all.
        crop_size: side of the training crops in pixels.
        scale_range: of the picture's shorter side in training, from which crops are cut (3.4).
        flip: train on mirror images too.
        min_visible: an object of which a crop shows less than this part (of what it can show) is neither object nor
            background there; a crop that shows no object is drawn again, up to ten times.
        test_resize: shorter side before the central crop in tests.
        test_scales: shorter sides of the dense test; [] for 1, 8/7 and 10/7 times the crop size (224, 256 and 320).
        bad_boxes: a box without area or outside its picture is an error, or is clipped or dropped (repair).
    """

    root: str | None = None
    train_split: str = "train"
    test_split: str | None = "val"
    test_count: int | None = None
    crop_size: int = 224
    scale_range: tuple[int, int] = (256, 480)
    flip: bool = True
    min_visible: float = 0.25
    test_resize: int = 256
    test_scales: list[int] = field(default_factory=list)
    bad_boxes: Literal["error", "repair"] = "error"


@dataclass(kw_only=True)
class LocaliserConfig(TrainingConfig):
    """Trains a localiser (Appendix C) on a pretrained classifier, tests it, and leaves a run folder.

    Where the data's classes are the classifier's, the test also takes the classes that it predicts. Under torchrun the
    same command trains on many GPUs. Example: python tools/train_localiser.py
    --config configs/localisation/resnet101_rpn.yaml --backbone.weights runs/resnet101 --data.root ILSVRC
    --output runs/rpn

    Args:
        backbone: the network; `weights` is needed.
        data: the pictures.
        anchors: the boxes that the RPN starts from, in pixels of the resized picture.
        part: "rpn" trains the per-class RPN; "rcnn" the network of the R-CNN step, which gives the proposals of such an
            RPN new scores and boxes.
        rpn: the per-class RPN; for the part "rcnn" that of `proposals_from` counts.
        regions: which regions the R-CNN step is trained and tested on.
        proposals_from: for the part "rcnn", a run folder or weights file of the part "rpn".
        protocol: how the pictures are shown in the test at the end; "center", that of the tests during training, is
            always among them.
    """

    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(freeze_stages=[]))
    data: LocalisationData = field(default_factory=LocalisationData)
    anchors: AnchorConfig = field(default_factory=lambda: AnchorConfig(scales=[64.0, 128.0, 256.0]))
    part: Literal["rpn", "rcnn"] = "rpn"
    rpn: ClassRPNOptions = field(default_factory=ClassRPNOptions)
    regions: RegionOptions = field(default_factory=RegionOptions)
    proposals_from: str | None = None
    protocol: list[Protocol] = field(default_factory=lambda: ["center"])
    train: TrainOptions = field(default_factory=lambda: TrainOptions(batch_size=256))
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=0.01))


def default_scales(crop_size: int) -> list[int]:
    """The scales of the dense test: they keep objects about as large as in training crops."""
    return [crop_size, round(crop_size * 8 / 7), round(crop_size * 10 / 7)]


def check_data(data: LocalisationData) -> None:
    """Refuses values that make no sense.

    Raises:
        ConfigError: names the key.
    """
    check_test_data(data)
    low, high = data.scale_range
    if not 1 <= data.crop_size <= LARGEST_SIDE:
        raise ConfigError(f"data.crop_size {data.crop_size}: give 1 to {LARGEST_SIDE}")
    if not data.crop_size <= low <= high <= LARGEST_SIDE:
        raise ConfigError(
            f"data.scale_range {[low, high]}: must rise, from data.crop_size {data.crop_size} or more to "
            f"{LARGEST_SIDE} at most"
        )
    if not data.crop_size <= data.test_resize <= LARGEST_SIDE:
        raise ConfigError(f"data.test_resize {data.test_resize}: give data.crop_size {data.crop_size} or more")
    if not 0 <= data.min_visible <= 1:
        raise ConfigError(f"data.min_visible {data.min_visible}: give a part from 0 to 1")


def check_test_data(data: LocalisationData) -> None:
    """Refuses values that make no sense where a localiser is tested. Raises ConfigError."""
    if not data.root:
        raise ConfigError("data.root is missing: name the folder of the CLS-LOC data")
    if data.test_count is not None and data.test_count < 1:
        raise ConfigError(f"data.test_count {data.test_count}: give 1 or more, or null")
    for scale in data.test_scales:
        if not 1 <= scale <= LARGEST_SIDE:
            raise ConfigError(f"data.test_scales {scale}: give 1 to {LARGEST_SIDE}")
