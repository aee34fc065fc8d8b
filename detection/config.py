"""The configuration of `train_detector.py`."""

from dataclasses import dataclass, field
from typing import Any, Literal

from backbones.config import OptimizerConfig, TrainingConfig
from backbones.engine.loop import TrainOptions
from backbones.errors import ConfigError
from detection.inference.options import InferenceOptions
from detection.models.roi_heads import RoIOptions
from detection.models.rpn import RPNOptions


@dataclass
class BackboneConfig:
    """The network under the detector.

    Args:
        weights: a run folder or weights file of `pretrain.py`; its network, options and normalisation are taken over.
            (To go on from a detector, see `weights` of the whole.)
        name: the network, where there are no weights; with weights it has to be theirs.
        options: its options, likewise.
        norm: frozen (as in the paper; needs weights) or batch (live; for random initialisation).
        freeze_stages: stages that are not trained, of conv1 to conv5.
    """

    weights: str | None = None
    name: str | None = None
    options: dict[str, int | float | str] = field(default_factory=dict)
    norm: Literal["frozen", "batch"] = "frozen"
    freeze_stages: list[str] = field(default_factory=lambda: ["conv1", "conv2"])


@dataclass
class DetectionData:
    """Pictures with boxes, and their size.

    Args:
        name: voc (a VOCdevkit or year folder), coco (`<root>/<split>/`, `<root>/annotations/`), det (ILSVRC's Data/DET,
            Annotations/DET, ImageSets/DET) or the built-in shapes.
        root: the folder of the data; shapes need none.
        train_split: trained on; several are joined by a plus: VOC2007/trainval+VOC2012/trainval.
        test_split: tested on; null: not tested (the objects of some test sets are not published).
        shorter_side: pictures are scaled to this shorter side,
        longest_side: or to this longer side, where that makes them smaller.
        flip: train on mirror images too.
        like_shapes: so many pictures of about the same aspect ratio stand together in the order of training; at best as
            many as a process sees at a time, since pictures of one size are faster together. 1 for none.
        pad_to: in training, pictures are padded with zeros, on the right and below, to a multiple of so many pixels, so
            that few sizes occur; features near these borders see the padding, anchors and proposals stay within the
            picture. 1: only to the stride of the feature map.
        bad_boxes: a box without area or outside its picture is an error, or is clipped or dropped (repair).
        train_size: how many training pictures the built-in shapes draw.
        test_size: how many test pictures they draw.
    """

    name: Literal["voc", "coco", "det", "shapes"] = "voc"
    root: str | None = None
    train_split: str = "trainval"
    test_split: str | None = "test"
    shorter_side: int = 600
    longest_side: int = 1000
    flip: bool = True
    like_shapes: int = 1
    pad_to: int = 1
    bad_boxes: Literal["error", "repair"] = "error"
    train_size: int = 4000
    test_size: int = 500


@dataclass
class AnchorConfig:
    """The boxes that proposals start from.

    Args:
        scales: square roots of their areas in pixels of the resized picture.
        ratios: height / width.
    """

    scales: list[float] = field(default_factory=lambda: [128.0, 256.0, 512.0])
    ratios: list[float] = field(default_factory=lambda: [0.5, 1.0, 2.0])


@dataclass
class RPNStages:
    """Where the two stages of alternating training that train the RPN differ from its two others, which follow `train`
    and `schedule`; null: they do not.

    Args:
        steps: optimizer steps of each.
        batch_size: pictures of one of them.
        accumulate: portions of one of them.
        milestones: steps at which the learning rate is lowered.
    """

    steps: int | None = None
    batch_size: int | None = None
    accumulate: int | None = None
    milestones: list[int] | None = None


@dataclass(kw_only=True)
class DetectorConfig(TrainingConfig):
    """Trains Faster R-CNN on a pretrained network, tests it, and leaves a run folder.

    Under torchrun the same command trains on many GPUs. Example: python tools/train_detector.py
    --config configs/voc/resnet101.yaml --backbone.weights runs/resnet101 --data.root VOCdevkit --output runs/voc

    Args:
        weights: a run folder or weights file of this command to go on from (fine-tuning), in the place of
            backbone.weights. Layers are that detector's; the last two keep the rows of classes of the same name (in
            VOC's or COCO's spelling). Batch norm, anchors, rpn.channels, pooling and context of regions have to be its
            own.
        backbone: the network.
        data: the pictures.
        anchors: where proposals start.
        rpn: the region proposal network.
        roi: the detector on the regions.
        scheme: "joint" trains all at once (approximate joint training); "alternating" in Faster R-CNN's four steps:
            RPN; Fast R-CNN on its proposals; RPN on the layers of that, which are shared and fixed from then on; Fast
            R-CNN on the proposals of that. Each is a run of its own in the folder `stages` of the run.
        rpn_stages: of the alternating scheme.
        inference: how the test set is tested.
    """

    weights: str | None = None
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    data: DetectionData = field(default_factory=DetectionData)
    anchors: AnchorConfig = field(default_factory=AnchorConfig)
    rpn: RPNOptions = field(default_factory=RPNOptions)
    roi: RoIOptions = field(default_factory=RoIOptions)
    scheme: Literal["joint", "alternating"] = "joint"
    rpn_stages: RPNStages = field(default_factory=RPNStages)
    inference: InferenceOptions = field(default_factory=InferenceOptions)
    # The defaults of Faster R-CNN.
    train: TrainOptions = field(default_factory=lambda: TrainOptions(batch_size=2))
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=0.001, weight_decay=5e-4))


def detector_options(config: DetectorConfig) -> dict[str, Any]:
    """What a configuration says of the detector itself, as `get_detector` and `detector_metadata` take it."""
    return {
        "norm": config.backbone.norm,
        "freeze_stages": config.backbone.freeze_stages,
        "anchor_scales": config.anchors.scales,
        "anchor_ratios": config.anchors.ratios,
        "rpn": config.rpn,
        "roi": config.roi,
    }


def check_data(data: DetectionData) -> None:
    """Refuses sizes that make no sense.

    Raises:
        ConfigError: names the key.
    """
    for name in ("shorter_side", "train_size", "test_size", "like_shapes", "pad_to"):
        if getattr(data, name) < 1:
            raise ConfigError(f"data.{name} {getattr(data, name)}: give 1 or more")
    if data.longest_side < data.shorter_side:
        raise ConfigError(f"data.longest_side {data.longest_side}: give data.shorter_side {data.shorter_side} or more")
