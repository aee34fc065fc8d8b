"""What the training of a detector starts from: a classifier, a detector of perhaps other classes, or new weights."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from backbones.config import check_options
from backbones.data.normalization import IMAGENET_MEAN, IMAGENET_STD
from backbones.errors import ConfigError
from backbones.text import printable
from backbones.weights import WeightsMetadata, check_same_network, load_classifier, load_state
from detection.class_names import find_classes
from detection.config import DetectorConfig
from detection.models import FasterRCNN
from detection.weights import load_detector

ROWS_OF_CLASSES = {"roi_heads.classification": 1, "roi_heads.box": 4}
"""The layers whose outputs belong to classes, and how many outputs a class has; only the first has a background's."""


@dataclass(frozen=True)
class Start:
    """Weights to start from.

    Args:
        source: their run folder or file; None: there are none.
        network: architecture, options and normalisation of the network under the detector, which are theirs.
        state: the weights: of a classifier or of a whole detector, as `network.task` says.
    """

    source: str | None
    network: WeightsMetadata
    state: dict[str, Tensor] | None

    @property
    def is_detector(self) -> bool:
        """Whether these are a detector's weights."""
        return self.network.task == "detection"

    def load(self, detector: FasterRCNN, classes: Sequence[str]) -> None:
        """Fills a new detector of these classes.

        Raises:
            CheckpointError: the weights do not fit.
        """
        if self.state is None:
            return
        if self.is_detector:
            state = with_rows_of(self.state, detector.state_dict(), find_classes(classes, self.network.classes))
            load_state(detector, state, str(self.source))
        else:
            detector.load_backbone(self.state)

    def class_origins(self, classes: Sequence[str]) -> dict[str, str | None] | None:
        """The name that each class has in the detector that training starts from, None where it is new there; None as a
        whole where this is no detector."""
        if not self.is_detector:
            return None
        known = self.network.classes
        places = find_classes(classes, known)
        return {name: None if at is None else known[at] for name, at in zip(classes, places, strict=True)}


def read_start(config: DetectorConfig) -> Start:
    """The weights that a configuration starts from, and what the network under the detector is.

    Raises:
        UserError: there are none where some are needed, they can't be used, or the configuration asks for another
            network than theirs.
    """
    wanted = config.backbone
    check_options(wanted.options, "backbone.options")
    if config.weights:
        if wanted.weights:
            raise ConfigError(
                f"backbone.weights {wanted.weights}: weights {config.weights} is a detector with a network of its own; "
                "leave one of them out"
            )
        detector, metadata = load_detector(config.weights)
        check_same_network(config.weights, metadata, wanted.name, wanted.options, "backbone")
        _check_same_detector(config, detector, metadata)
        return Start(config.weights, metadata, detector.state_dict())
    if wanted.weights:
        network, metadata = load_classifier(wanted.weights)
        check_same_network(wanted.weights, metadata, wanted.name, wanted.options, "backbone")
        return Start(wanted.weights, metadata, network.state_dict())
    return Start(None, _new_network(config), None)


def _check_same_detector(config: DetectorConfig, detector: FasterRCNN, metadata: WeightsMetadata) -> None:
    """Refuses another detector than the weights': what shapes its layers, or what these have learnt to expect."""
    theirs, heads = metadata.detector, detector.roi_heads
    keys = [
        ("backbone.norm", theirs["norm"], config.backbone.norm),
        ("anchors.scales", theirs["anchor_scales"], config.anchors.scales),
        ("anchors.ratios", theirs["anchor_ratios"], config.anchors.ratios),
        ("rpn.channels", detector.rpn.options.channels, config.rpn.channels),
        ("roi.pooling", heads.options.pooling, config.roi.pooling),
        ("roi.pool_size", heads.pool_size, config.roi.pool_size or heads.split.pool_size),
        ("roi.context", heads.options.context, config.roi.context),
    ]
    for key, its, asked in keys:
        if its != asked:
            raise ConfigError(f"{key} {asked}: the detector {config.weights} has {its}, and can't change it: set {its}")


def _new_network(config: DetectorConfig) -> WeightsMetadata:
    """A network that starts from nothing."""
    wanted = config.backbone
    if wanted.name is None:
        raise ConfigError(
            "backbone.weights is missing: name a run of pretrain.py; or start from nothing, with backbone.name"
        )
    has_batch_norm = wanted.name not in ("vgg16", "vgg19")
    if (wanted.norm == "frozen" and has_batch_norm) or wanted.freeze_stages:
        raise ConfigError(
            "backbone.weights is missing: a network with new weights can't be frozen; "
            "name weights, or set --backbone.norm batch --backbone.freeze_stages []"
        )
    return WeightsMetadata(
        task="classification",
        architecture=wanted.name,
        options=dict(wanted.options),
        classes=[],
        mean=list(IMAGENET_MEAN),
        std=list(IMAGENET_STD),
        input_size=config.data.shorter_side,
    )


def with_rows_of(state: dict[str, Tensor], new: dict[str, Tensor], places: Sequence[int | None]) -> dict[str, Tensor]:
    """The weights `state` of a detector, for other classes: in its two sibling layers (4.3) each keeps its own rows.

    Args:
        new: the weights of a new detector of the K classes, of which the rows of new classes are taken.
        places: for each of the K, its place among those of `state`; None for a new class.
    """
    filled = dict(state)
    for layer, rows in ROWS_OF_CLASSES.items():
        background = int(rows == 1)
        for name in (f"{layer}.weight", f"{layer}.bias"):
            old, values = state[name], new[name].clone()
            values[:background] = old[:background]
            for place, old_place in enumerate(places):
                if old_place is not None:
                    here, there = (background + rows * at for at in (place, old_place))
                    values[here : here + rows] = old[there : there + rows]
            filled[name] = values
    return filled


def describe_classes(origins: dict[str, str | None], known: int) -> str:
    """Which classes are known, under which other name, and which are new, in lines.

    Args:
        origins: see `Start.class_origins`.
        known: how many classes the detector had.
    """
    alike = [name for name, origin in origins.items() if name == origin]
    others = [f"{name} = {origin}" for name, origin in origins.items() if origin not in (None, name)]
    new = [name for name, origin in origins.items() if origin is None]
    found = len(origins) - len(new)
    lines = [f"classes by name: {found} of {len(origins)} are among the {known} of the detector to start from"]
    parts = {"under the same name": alike, "under another name": others, "new": new}
    lines += [f"  {title}: {', '.join(map(printable, names)) or 'none'}" for title, names in parts.items()]
    return "\n".join(lines)
