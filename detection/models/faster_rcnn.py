"""Faster R-CNN on the networks of the paper (4.3): pictures in, losses or detections out."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Self

import torch
from torch import Tensor, nn

from backbones.data.normalization import IMAGENET_MEAN, IMAGENET_STD
from backbones.errors import CheckpointError, ConfigError
from backbones.models import StagedNetwork, get_model
from backbones.models.vgg import VGG
from detection.models.checks import require
from detection.models.features import split_backbone
from detection.models.frozen_bn import FrozenBatchNorm2d
from detection.models.postprocessing import postprocess
from detection.models.roi_heads import RoIHeads, RoIOptions
from detection.models.rpn import RPN, RPNOptions
from detection.structures import Detections, Size, Target

Part = Literal["all", "rpn", "regions"]
"""What is trained: the whole detector, the RPN on the shared layers, or what is run on regions, on shared layers."""

CLASSIFYING_LAYERS = ("fc.", "classifier.6.")
"""How the names of the weights of a ResNet's and a VGG's last layer begin: detection has no use for these."""


_COMPILED_SIZES = 32


def layer_layout(device: torch.device) -> torch.memory_format:
    """How the shared layers' maps lie in a device's memory: channels_last, as GPUs' tensor cores want them."""
    # On CPUs PyTorch's backward pass in channels_last has written beyond its memory (maps 4,000 pixels wide).
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


def get_detector(
    backbone: str,
    num_classes: int,
    *,
    backbone_options: Mapping[str, object] | None = None,
    norm: Literal["frozen", "batch"] = "frozen",
    freeze_stages: Sequence[str] = ("conv1", "conv2"),
    anchor_scales: Sequence[float] = (128.0, 256.0, 512.0),
    anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    rpn: RPNOptions | None = None,
    roi: RoIOptions | None = None,
) -> "FasterRCNN":
    """Builds a detector with new weights; those of a classifier come with `FasterRCNN.load_backbone`.

    Args:
        backbone: an ImageNet network of `backbones.list_models()`.
        num_classes: K, without background.
        backbone_options: of `backbones.get_model`, as `{"width": 16}`.
        norm: "frozen" makes batch normalisation an affine transform with the classifier's statistics, as the paper
            does; "batch" leaves it live, which a backbone with new weights needs.
        freeze_stages: stages that are not trained, of "conv1" to "conv5".
        anchor_scales: square roots of the anchors' areas, in pixels; the paper adds 64 for COCO.
        anchor_ratios: height / width of the anchors.
        mean: of the pictures' channels R, G, B, in [0, 255]: what the classifier was trained with.
        std: likewise.
        rpn: see `RPNOptions`.
        roi: see `RoIOptions`.

    Raises:
        ConfigError: no such network, option or value.
    """
    require(norm in ("frozen", "batch"), "norm", norm, "frozen or batch")
    if backbone.startswith("cifar"):
        raise ConfigError(f"{backbone} has no conv5 and can't detect: choose a network for ImageNet, as resnet101")
    norm_layer = FrozenBatchNorm2d if norm == "frozen" else nn.BatchNorm2d
    return FasterRCNN(
        get_model(backbone, 0, norm_layer=norm_layer, **(backbone_options or {})),
        num_classes,
        freeze_stages=freeze_stages,
        anchor_scales=anchor_scales,
        anchor_ratios=anchor_ratios,
        mean=mean,
        std=std,
        rpn=rpn or RPNOptions(),
        roi=roi or RoIOptions(),
    )


class FasterRCNN(nn.Module):
    """The detector. Trained as a whole, by approximate joint training (no gradient flows into the coordinates of
    proposals), or a part at a time.

    Args:
        backbone: a network without its classifying layer; the other arguments are those of `get_detector`.

    Raises:
        ConfigError: a value that makes no sense.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: StagedNetwork,
        num_classes: int,
        *,
        freeze_stages: Sequence[str],
        anchor_scales: Sequence[float],
        anchor_ratios: Sequence[float],
        mean: Sequence[float],
        std: Sequence[float],
        rpn: RPNOptions,
        roi: RoIOptions,
    ) -> None:
        require(num_classes >= 1, "num_classes", num_classes, "1 or more")
        for key, values in (("anchor_scales", anchor_scales), ("anchor_ratios", anchor_ratios), ("std", std)):
            positive = len(values) > 0 and all(0 < value < math.inf for value in values)
            require(positive, key, values, "a list of numbers above 0")
        for key, values in (("mean", mean), ("std", std)):
            require(len(values) == 3, key, values, "three numbers (R, G, B)")
        super().__init__()
        self.backbone = backbone
        self.split = split_backbone(backbone)
        self.rpn = RPN(
            self.split.channels,
            self.split.stride,
            anchor_scales=anchor_scales,
            anchor_ratios=anchor_ratios,
            options=rpn,
        )
        self.roi_heads = RoIHeads(self.split, num_classes, options=roi)
        for key, values in (("mean", mean), ("std", std)):  # whole numbers too
            self.register_buffer(key, torch.tensor([float(value) for value in values]).view(3, 1, 1))
        self._pad_to = self.split.stride
        self._compiled: Callable[[Tensor], Tensor] | None = None
        self._compiled_sizes: set[torch.Size] = set()
        self.freeze_stages: tuple[str, ...] = ()
        self.freeze(freeze_stages)

    def move_to(self, device: torch.device, dtype: torch.dtype | None = None) -> Self:
        """Moves the weights to a device, where they lie as the shared layers' maps do."""
        return self.to(device, dtype).to(memory_format=layer_layout(device))

    def compile_layers(self) -> None:
        """From now on the shared layers are compiled in training, for each size of batch anew (`pad_to` leaves few).

        In evaluation, and with further sizes when there are 32, they run as before.
        """
        # Kernels for any size were compiled anew for most sizes too (PyTorch 2.14: guards on strides of what is kept).
        self._compiled = torch.compile(self.split.shared, dynamic=False)

    @property
    def pad_to(self) -> int:
        """Sides of the pictures are padded to a multiple of this; to no more than the stride in evaluation."""
        return self._pad_to if self.training else self.split.stride

    @pad_to.setter
    def pad_to(self, pixels: int) -> None:
        self._pad_to = self.split.stride * max(1, -(-pixels // self.split.stride))

    def freeze(self, names: Sequence[str]) -> None:
        """Fixes further stages, of "conv1" to "conv5". Raises ConfigError if there is none of that name."""
        stages = self.backbone.stages()
        for name in names:
            require(name in stages, "freeze_stages", name, f"among {', '.join(stages)}")
        self.freeze_stages = tuple(dict.fromkeys([*self.freeze_stages, *names]))
        for module in self._frozen_modules():
            module.requires_grad_(False)
        self.train(self.training)  # which leaves those stages in evaluation mode

    def _frozen_modules(self) -> list[nn.Module]:
        stages = self.backbone.stages()
        return [module for name in self.freeze_stages for module in stages[name].modules]

    def train(self, mode: bool = True) -> "FasterRCNN":
        """As `nn.Module.train`; batch normalisation of frozen stages stays as in evaluation."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def forward(
        self,
        images: Sequence[Tensor],
        targets: Sequence[Target] | None = None,
        seeds: Sequence[int] | None = None,
        proposals: Sequence[Tensor] | None = None,
        part: Part = "all",
    ) -> dict[str, Tensor] | list[Detections]:
        """Losses in training mode, detections in evaluation mode.

        Images of one size go through the layers together, others apart: none sees the padding of another.

        Args:
            images: (3, h, w) uint8 RGB each, of any sizes, already resized.
            targets: the objects of each image, in its pixels; needed in training.
            seeds: decide, each for its image alone, which anchors and regions are trained on; by default drawn from
                PyTorch's global generator.
            proposals: (P, 4) of each image, in the place of those of this network's RPN.
            part: the part of the detector whose losses are wanted; "regions" needs proposals.

        Returns:
            In training, the losses of the RPN, "rpn_objectness" and "rpn_box", and of the regions, "classification"
            and "box": means over the images of the image's own loss. In evaluation, the detections of each image in
            its pixels, best score first.
        """
        groups = self._images_by_size(images)
        if not self.training:
            found: dict[int, Detections] = {}
            for group in groups:
                given = None if proposals is None else [proposals[i] for i in group]
                found |= zip(group, self._detect([images[i] for i in group], given), strict=True)
            return [found[i] for i in range(len(images))]

        if targets is None:
            raise ValueError("a detector in training mode needs targets; call eval() to detect")
        if seeds is None:
            seeds = torch.randint(2**62, (len(images),)).tolist()
        losses: dict[str, Tensor] = {}
        for group in groups:
            given = None if proposals is None else [proposals[i] for i in group]
            picked = [images[i] for i in group], [targets[i] for i in group], [seeds[i] for i in group]
            for name, loss in self._losses(*picked, given, part).items():
                share = loss * (len(group) / len(images))
                losses[name] = losses[name] + share if name in losses else share
        return losses

    def _images_by_size(self, images: Sequence[Tensor]) -> list[list[int]]:
        """Places of images whose feature maps, with their padding, are of one size."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for place, image in enumerate(images):
            groups.setdefault(tuple(-(-side // self.pad_to) for side in image.shape[1:]), []).append(place)
        return list(groups.values())

    def _losses(
        self,
        images: Sequence[Tensor],
        targets: Sequence[Target],
        seeds: Sequence[int],
        proposals: Sequence[Tensor] | None,
        part: Part,
    ) -> dict[str, Tensor]:
        """The losses of images with feature maps of one size."""
        sizes = _sizes(images)
        features = self.features(images)
        targets = [target.to(features.device) for target in targets]
        losses: dict[str, Tensor] = {}
        if part != "regions":
            predictions = self.rpn.predict(features, sizes)
            # Before non-maximum suppression, which waits for the GPU: it then has something to do.
            losses["rpn_objectness"], losses["rpn_box"] = self.rpn.loss(predictions, sizes, targets, seeds)
            if proposals is None and part == "all":
                proposals = self.rpn.propose(predictions, sizes, to_train=True)
        if part != "rpn":
            if proposals is None:
                raise ValueError("the losses of regions alone need proposals")
            proposals = [each.to(features.device, non_blocking=True) for each in proposals]
            losses["classification"], losses["box"] = self.roi_heads.loss(features, proposals, sizes, targets, seeds)
        return losses

    def _detect(self, images: Sequence[Tensor], proposals: Sequence[Tensor] | None) -> list[Detections]:
        """The detections in images with feature maps of one size."""
        sizes = _sizes(images)
        features = self.features(images)
        if proposals is None:
            proposals = self.rpn.propose(self.rpn.predict(features, sizes), sizes, to_train=False)
        proposals = [each.to(features.device, non_blocking=True) for each in proposals]
        scores, boxes = self.roi_heads.score_regions(features, proposals, sizes)
        counts = [len(each) for each in proposals]
        regions = zip(scores.split(counts), boxes.split(counts), sizes, strict=True)
        return [postprocess(*each, self.roi_heads.options) for each in regions]

    @torch.no_grad()
    def propose(self, image: Tensor, *, to_train: bool) -> Tensor:
        """The proposals (P, 4) in one image (3, h, w) uint8, best first; see `RPN.propose`."""
        sizes = _sizes([image])
        (proposals,) = self.rpn.propose(self.rpn.predict(self.features([image]), sizes), sizes, to_train=to_train)
        return proposals

    def train_only(self, part: Part) -> None:
        """Fixes the layers that the losses of `part` have no use for."""
        if part == "rpn":
            for module in (self.roi_heads, *self.split.region_layers()):
                module.requires_grad_(False)
        elif part == "regions":
            self.rpn.requires_grad_(False)

    def features(self, images: Sequence[Tensor]) -> Tensor:
        """The shared feature map (N, C, H, W) of images (3, h, w) uint8.

        Images are normalised, then padded with zeros on the right and below to a common multiple of `pad_to`, which is
        the stride unless more was asked for.
        """
        height, width = (self.pad_to * max(-(-image.shape[d] // self.pad_to) for image in images) for d in (1, 2))
        batch = self.mean.new_zeros(len(images), 3, height, width).to(memory_format=layer_layout(self.mean.device))
        images = [image.to(batch.device, non_blocking=True) for image in images]
        of_one_size = len({image.shape for image in images}) == 1
        pieces = [torch.stack(images)] if of_one_size else [image[None] for image in images]
        for padded, piece in zip(batch.split([len(piece) for piece in pieces]), pieces, strict=True):
            pixels = piece.to(batch.dtype).sub_(self.mean).div_(self.std)
            padded[:, :, : pixels.shape[2], : pixels.shape[3]] = pixels
        return self._shared(batch)

    def _shared(self, batch: Tensor) -> Tensor:
        if self._compiled is None or not self.training:
            return self.split.shared(batch)
        if batch.shape not in self._compiled_sizes:
            if len(self._compiled_sizes) == _COMPILED_SIZES:
                warnings.warn(f"not compiled for more than {_COMPILED_SIZES} sizes: set data.pad_to", stacklevel=2)
                return self.split.shared(batch)
            self._compiled_sizes.add(batch.shape)
        with torch._dynamo.config.patch(recompile_limit=4 * _COMPILED_SIZES):  # PyTorch's own is 8
            return self._compiled(batch)

    def load_backbone(self, state_dict: Mapping[str, Tensor]) -> None:
        """Loads a classifier's weights into the backbone, but for its classifying layer.

        Raises:
            CheckpointError: weights are missing, not known or of another shape.
        """
        given = {name: value for name, value in state_dict.items() if not name.startswith(CLASSIFYING_LAYERS)}
        own = self.backbone.state_dict()
        # Counters of batch normalisation: frozen layers have none, and old checkpoints neither.
        names, own_names = ({n for n in each if not n.endswith("num_batches_tracked")} for each in (given, own))
        shapes = [
            f"{n} {tuple(given[n].shape)} instead of {tuple(own[n].shape)}"
            for n in sorted(names & own_names)
            if given[n].shape != own[n].shape
        ]
        found = {"missing": sorted(own_names - names), "not known": sorted(names - own_names), "shapes": shapes}
        problems = [f"{kind}: {_some(items)}" for kind, items in found.items() if items]
        if problems:
            raise CheckpointError(f"weights do not fit the backbone ({'; '.join(problems)}): is it another network?")
        self.backbone.load_state_dict(given)


def describe_parameters(detector: FasterRCNN) -> str:
    """A table of the trainable and frozen parameters of each part; frozen batch normalisation's two are counted."""
    parts: dict[str, Sequence[nn.Module]] = {name: s.modules for name, s in detector.backbone.stages().items()}
    if isinstance(detector.backbone, VGG):
        parts["fc"] = [detector.backbone.classifier]
    parts |= {"rpn": [detector.rpn], "roi": [detector.roi_heads]}
    lines = [f"{'part':<6}{'trainable':>14}{'frozen':>14}"]
    for name, modules in parts.items():
        trainable, frozen = (sum(counts) for counts in zip(*map(_count, modules), strict=True))
        lines.append(f"{name:<6}{trainable:>14,}{frozen:>14,}")
    return "\n".join(lines)


def _sizes(images: Sequence[Tensor]) -> list[Size]:
    return [(image.shape[-2], image.shape[-1]) for image in images]


def _count(module: nn.Module) -> tuple[int, int]:
    parameters = list(module.parameters())
    trainable = sum(p.numel() for p in parameters if p.requires_grad)
    frozen_bn = sum(2 * m.weight.numel() for m in module.modules() if isinstance(m, FrozenBatchNorm2d))
    return trainable, sum(p.numel() for p in parameters) - trainable + frozen_bn


def _some(items: Sequence[str], limit: int = 4) -> str:
    return ", ".join(items[:limit]) + (f" and {len(items) - limit} more" if len(items) > limit else "")
