"""The localiser: a classification network up to one of its stages, and the per-class RPN on that stage's map."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.models import StagedNetwork, get_model, run_stages
from backbones.weights import load_state
from detection.localisation.rpn import ClassPredictions, ClassRPNOptions, PerClassRPN
from detection.models.boxes import decode
from detection.models.checks import require
from detection.models.faster_rcnn import CLASSIFYING_LAYERS
from detection.models.frozen_bn import FrozenBatchNorm2d
from detection.structures import Target


def build_backbone(
    name: str, options: Mapping[str, object], norm: Literal["frozen", "batch"], freeze_stages: Sequence[str]
) -> StagedNetwork:
    """A network without its classifying layer, with new weights.

    Args:
        norm: "frozen" makes batch normalisation an affine transform with the classifier's statistics (Appendix A);
            "batch" leaves it live.
        freeze_stages: stages that are not trained.

    Raises:
        ConfigError: no such network, option, value or stage.
    """
    require(norm in ("frozen", "batch"), "norm", norm, "frozen or batch")
    norm_layer = FrozenBatchNorm2d if norm == "frozen" else nn.BatchNorm2d
    network = get_model(name, 0, norm_layer=norm_layer, **options)  # type: ignore[arg-type]
    network.freeze(freeze_stages)
    return network


def load_backbone(backbone: StagedNetwork, state: Mapping[str, Tensor], source: str) -> None:
    """Loads a classifier's weights into a network without classifying layer.

    Raises:
        CheckpointError: they do not fit.
    """
    own = backbone.state_dict()
    counted = {name: value for name, value in state.items() if not name.startswith(CLASSIFYING_LAYERS)}
    # Frozen batch normalisation counts no batches.
    kept = {n: v for n, v in counted.items() if n in own or not n.endswith("num_batches_tracked")}
    load_state(backbone, kept, source)


class Normalize(nn.Module):
    """(N, 3, H, W) uint8 RGB pictures to the backbone's input.

    Args:
        mean, std: of the channels R, G, B, in [0, 255]: what the classifier was trained with.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        for key, values in (("mean", mean), ("std", std)):
            require(len(values) == 3, key, values, "three numbers (R, G, B)")
        require(all(0 < value < math.inf for value in std), "std", std, "a list of numbers above 0")
        super().__init__()
        for key, values in (("mean", mean), ("std", std)):
            self.register_buffer(key, torch.tensor([float(value) for value in values]).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images.to(self.mean.device, non_blocking=True).to(self.mean.dtype) - self.mean) / self.std


class Localiser(nn.Module):
    """Says for any class where in a picture its object would be.

    Args:
        backbone: a network without its classifying layer; what comes after `options.stage` is not used.
        num_classes: K.
        anchor_scales: square roots of the anchors' areas, in pixels.
        anchor_ratios: height / width of the anchors.
        mean, std: see `Normalize`.
        options: of the RPN.

    Raises:
        ConfigError: a value that makes no sense.
    """

    def __init__(
        self,
        backbone: StagedNetwork,
        num_classes: int,
        *,
        anchor_scales: Sequence[float],
        anchor_ratios: Sequence[float],
        mean: Sequence[float],
        std: Sequence[float],
        options: ClassRPNOptions,
    ) -> None:
        require(num_classes >= 1, "num_classes", num_classes, "1 or more")
        for key, values in (("anchor_scales", anchor_scales), ("anchor_ratios", anchor_ratios)):
            positive = len(values) > 0 and all(0 < value < math.inf for value in values)
            require(positive, key, values, "a list of numbers above 0")
        stages = backbone.stages()
        require(options.stage in stages, "rpn.stage", options.stage, f"among {', '.join(stages)}")
        super().__init__()
        self.backbone = backbone
        self.normalize = Normalize(mean, std)
        stage = stages[options.stage]
        self.rpn = PerClassRPN(
            stage.channels,
            stage.stride,
            num_classes,
            anchor_scales=anchor_scales,
            anchor_ratios=anchor_ratios,
            options=options,
        )
        used = {id(p) for name in _up_to(stages, options.stage) for m in stages[name].modules for p in m.parameters()}
        for parameter in backbone.parameters():
            if id(parameter) not in used:
                parameter.requires_grad_(False)

    def predict(self, images: Tensor, labels: Tensor) -> ClassPredictions:
        """What the RPN says of pictures (N, 3, H, W) uint8 for classes (N, P).

        The network is fully convolutional: pictures may have any size. Sides of less than a cell are padded with zeros
        to one, on the right and below (a VGG's pools would leave nothing of them).
        """
        below, right = (max(0, self.rpn.stride - side) for side in images.shape[2:])
        x = F.pad(self.normalize(images), (0, right, 0, below))
        features = run_stages(self.backbone, x, "conv1", self.rpn.options.stage)
        return self.rpn.predict(features, labels.to(features.device, non_blocking=True))

    def forward(
        self, images: Tensor, labels: Tensor, targets: Sequence[Target], seeds: Sequence[int]
    ) -> dict[str, Tensor]:
        """The losses, "objectness" and "box", of pictures (N, 3, H, W) uint8 that show classes (N,); see `loss`."""
        predictions = self.predict(images, labels[:, None])
        objects = [target.to(predictions.logits.device) for target in targets]
        objectness, box = self.rpn.loss(predictions, objects, seeds)
        return {"objectness": objectness, "box": box}

    @torch.no_grad()
    def locate(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (N, P, n) in [0, 1] and boxes (N, P, n, 4) in pictures (N, 3, H, W) uint8, for classes (N, P).

        Boxes lie in their pictures.
        """
        predictions = self.predict(images, labels)
        boxes = decode(predictions.deltas, predictions.anchors).nan_to_num(0.0)
        height, width = images.shape[2:]
        scores = predictions.logits.sigmoid().nan_to_num(0.0)  # of a network that diverged
        return scores, boxes.clamp(min=0).minimum(boxes.new_tensor([width, height] * 2))


def describe_parameters(network: Localiser | nn.Module, backbone: StagedNetwork) -> str:
    """A table of the trainable and the fixed parameters of each stage, and of the new layers."""
    inside = {id(p) for p in backbone.parameters()}
    new = sum(p.numel() for p in network.parameters() if id(p) not in inside)
    return f"{backbone.describe_parameters()}\n{'new layers':<10}{new:>14,}{0:>14,}"


def _up_to(stages: Mapping[str, object], last: str) -> list[str]:
    names = list(stages)
    return names[: names.index(last) + 1]
