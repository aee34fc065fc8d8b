"""Scoring the regions of a picture on the maps of an image pyramid (Appendix B, multi-scale testing).

Shapes and names:
    S         scales of the pyramid
    rois      (R, 4), regions in the pixels of the picture at the detector's trained size
    scores    (R, K + 1), probabilities, background first
    boxes     (R, K, 4), what each region becomes if it holds an object of this class, in the same pixels as the rois
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detection.inference.options import Merge
from detection.models.roi_heads import RoIHeads, with_context
from detection.structures import Size


@dataclass
class Pyramid:
    """A picture at several scales; each region is looked at on two of them.

    The maps are made once, and kept as long as the picture is looked at.

    Args:
        heads: of the detector.
        size: of the picture at the trained size.
        context: (1, D), that of the trained size, where the detector has one.
        levels: of all scales, smallest first, the map (1, C, H, W) and the picture's size.
        region_side: how large regions should look, see `InferenceOptions`.
        merge: where the two scales become one.
    """

    heads: RoIHeads
    size: Size
    context: Tensor | None
    levels: Sequence[tuple[Tensor, Size]]
    region_side: float
    merge: Merge

    def score(self, rois: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and boxes of any regions."""
        heads = self.heads
        if self.merge == "scores":
            scores, deltas = self._best_scores(rois)
        else:
            if self.merge == "pooled":
                features = heads.split.region(self._maximum(rois, heads.pool))
            else:
                features = self._maximum(rois, heads.region_features)
            logits, deltas = heads.predict(with_context(features, self.context))
            scores = logits.softmax(dim=1)
        return scores, heads.regress(deltas, rois)

    def _maximum(self, rois: Tensor, compute: Callable[[Tensor, Sequence[Tensor]], Tensor]) -> Tensor:
        """The element-wise maximum over the two scales of what is computed from a map and regions of it."""
        best: Tensor | None = None
        for features, rows, scaled in self._on_each_scale(rois):
            values = compute(features, [scaled])
            if best is None:
                best = values.new_full((len(rois), *values.shape[1:]), -math.inf)
            best[rows] = torch.maximum(best[rows], values)
        assert best is not None  # every picture has a proposal
        return best

    def _best_scores(self, rois: Tensor) -> tuple[Tensor, Tensor]:
        """The larger score of each class, and the deltas of the scale that it is from."""
        classes = self.heads.classification.out_features
        scores = rois.new_full((len(rois), classes), -math.inf)
        deltas = rois.new_zeros((len(rois), classes - 1, 4))
        for features, rows, scaled in self._on_each_scale(rois):
            own = self.heads.region_features(features, [scaled])
            logits, new = self.heads.predict(with_context(own, self.context))
            probabilities = logits.softmax(dim=1)
            better = probabilities[:, 1:] > scores[rows, 1:]
            deltas[rows] = torch.where(better[:, :, None], new, deltas[rows])
            scores[rows] = torch.maximum(probabilities, scores[rows])
        return scores, deltas

    def _on_each_scale(self, rois: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The map of each scale, which regions are looked at on it, and these in its pixels."""
        height, width = self.size
        factors = [math.sqrt((h / height) * (w / width)) for _, (h, w) in self.levels]
        chosen = adjacent_scales(rois, factors, self.region_side).cpu()  # a GPU is waited for once, not at each scale
        for i, (features, (h, w)) in enumerate(self.levels):
            rows = (chosen == i).any(dim=1).nonzero()[:, 0].to(rois.device)
            if len(rows):
                ratio = rois.new_tensor([w / width, h / height, w / width, h / height])
                yield features, rows, rois[rows] * ratio


def adjacent_scales(rois: Tensor, factors: Sequence[float], region_side: float) -> Tensor:
    """The two neighbouring scales between which each region is about `region_side` pixels large; at the ends of the
    pyramid the last two.

    Args:
        rois: (R, 4).
        factors: (S,) rising, by which the scales are larger than the picture that `rois` lie in.
        region_side: the wanted square root of a region's area, in pixels.

    Returns:
        (R, 2) int64, places among the scales, the smaller first; the same one twice where there is only one.
    """
    area = (rois[:, 2:] - rois[:, :2]).clamp(min=0).prod(dim=1)
    wanted = region_side / area.sqrt()  # infinite for regions without area: the largest scales
    # Two are enough to stand between: an end of the pyramid never decides.
    inner = rois.new_tensor(factors[1:-1])
    lower = torch.bucketize(wanted, inner, right=True)
    return torch.stack([lower, (lower + 1).clamp(max=len(factors) - 1)], dim=1)
