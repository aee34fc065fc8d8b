"""Finding the objects in a picture with one detector or several, by all means of Appendix B."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from backbones.weights import WeightsMetadata
from detection.inference.options import InferenceOptions
from detection.inference.pyramid import Pyramid
from detection.models import FasterRCNN, postprocess
from detection.structures import Detections, Size, View


@dataclass(frozen=True)
class Member:
    """One detector of an ensemble.

    Args:
        detector: in eval mode.
        shorter, longest: sides of the pictures that it is trained with, see `resize_scale`.
    """

    detector: FasterRCNN
    shorter: int
    longest: int

    @property
    def trained_view(self) -> View:
        return self.shorter, self.longest

    def view(self, scale: int) -> View:
        """The picture with another shorter side; the longer one may be longer by as much."""
        return scale, round(scale * self.longest / self.shorter)


class Ensemble:
    """One detector, or several that know the same classes, whatever their backbones.

    Several process the union of their proposals; scores and boxes of a region are the means of theirs (Appendix B).
    One with no options finds exactly what `FasterRCNN.forward` does.

    Args:
        members: the first one's RoI options decide on threshold, NMS and the number of detections.
        options: see `InferenceOptions`.
    """

    def __init__(self, members: Sequence[Member], options: InferenceOptions) -> None:
        self.members = list(members)
        self.options = options

    @property
    def views(self) -> list[View]:
        """How a picture has to be shown; the first is the one whose pixels detections are in."""
        scales = self.options.scales
        views = [view for m in self.members for view in (m.trained_view, *map(m.view, scales))]
        return list(dict.fromkeys(views))

    @torch.inference_mode()
    def __call__(self, images: Mapping[View, Tensor], proposals: Tensor | None = None) -> Detections:
        """The detections in one picture, in the pixels of its first view, best score first.

        Args:
            images: (3, h, w) uint8, of each of `views`.
            proposals: (P, 4) in these pixels, in the place of those of the detectors.
        """
        size = _size(images[self.views[0]])
        pictures = [_Picture(member, images, self.options, size) for member in self.members]
        if proposals is None:
            proposals = torch.cat([picture.propose() for picture in pictures])
        rois = proposals.to(pictures[0].features.device, non_blocking=True)
        scores, boxes = _mean(picture.score(rois) for picture in pictures)
        if self.options.refine:
            # Of a diverged network too: RoI align crashes on boxes that are no numbers.
            again = clip_boxes_to_image(likeliest_boxes(scores, boxes).nan_to_num(0.0), size)
            new_scores, new_boxes = _mean(picture.score(again) for picture in pictures)
            scores, boxes = torch.cat([scores, new_scores]), torch.cat([boxes, new_boxes])
        roi_options = self.members[0].detector.roi_heads.options
        return postprocess(scores, boxes, size, roi_options, voting=self.options.vote)


def make_ensemble(models: Sequence[tuple[FasterRCNN, WeightsMetadata]], options: InferenceOptions) -> Ensemble:
    """An ensemble of detectors as `load_detectors` gives them."""
    return Ensemble(
        [Member(detector, m.detector["shorter_side"], m.detector["longest_side"]) for detector, m in models], options
    )


class _Picture:
    """A picture as one member sees it; boxes go in and out in the pixels of the ensemble's first view.

    Args:
        reference: the picture's size in that view.
    """

    def __init__(
        self, member: Member, images: Mapping[View, Tensor], options: InferenceOptions, reference: Size
    ) -> None:
        self.detector = detector = member.detector
        self.size = _size(images[member.trained_view])
        self.features = detector.features([images[member.trained_view]])
        width, height = self.size[1] / reference[1], self.size[0] / reference[0]
        exact = torch.promote_types(self.features.dtype, torch.float32)
        self.ratio = self.features.new_empty(4, dtype=exact)
        for start, ratio in enumerate((width, height)):  # filled there: numbers from the host would wait for a GPU
            self.ratio[start::2].fill_(ratio)
        self.pyramid: Pyramid | None = None
        if options.scales:
            here = self.features, self.size
            levels = [
                here if view == member.trained_view else (detector.features([images[view]]), _size(images[view]))
                for view in map(member.view, options.scales)
            ]
            context = detector.roi_heads.context(self.features, self.size)
            self.pyramid = Pyramid(detector.roi_heads, self.size, context, levels, options.region_side, options.merge)

    def propose(self) -> Tensor:
        """The member's own proposals (P, 4), best first."""
        rpn = self.detector.rpn
        (proposals,) = rpn.propose(rpn.predict(self.features, [self.size]), [self.size], to_train=False)
        return proposals / self.ratio

    def score(self, rois: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (R, K + 1) and boxes (R, K, 4) of regions."""
        # As many at a time as the member is tested with alone, so that an ensemble needs no more memory.
        portions = (rois * self.ratio).split(self.detector.rpn.options.post_nms_test)
        scores, boxes = (torch.cat(each) for each in zip(*map(self._score, portions), strict=True))
        return scores, boxes / self.ratio

    def _score(self, rois: Tensor) -> tuple[Tensor, Tensor]:
        if self.pyramid is not None:
            return self.pyramid.score(rois)
        return self.detector.roi_heads.score_regions(self.features, [rois], [self.size])


def likeliest_boxes(scores: Tensor, boxes: Tensor) -> Tensor:
    """The box (R, 4) that each region becomes if it holds its likeliest class, background aside.

    Args:
        scores: (R, K + 1), background first.
        boxes: (R, K, 4).
    """
    return boxes[torch.arange(len(boxes), device=boxes.device), scores[:, 1:].argmax(dim=1)]


def _mean(predictions: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    scores, boxes = (torch.stack(each).mean(dim=0) for each in zip(*predictions, strict=True))
    return scores, boxes


def _size(image: Tensor) -> Size:
    return image.shape[1], image.shape[2]
