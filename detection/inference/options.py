"""What a detector is tested with beyond the plain way (Appendix B)."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from backbones.errors import ConfigError
from backbones.weights import is_side

Merge = Literal["pooled", "features", "scores"]


@dataclass(frozen=True)
class InferenceOptions:
    """How objects are found (Appendix B); by default in the plain way: one size, each region once.

    Args:
        refine: pool again from the box that each region becomes if it holds its likeliest class, and put the new
            scores and boxes beside the old ones.
        vote: a detection's box becomes the mean, by score, of all boxes of its class that overlap it by 0.5 or more
            (box voting).
        scales: shorter sides of the image pyramid, as [200, 400, 600, 800, 1000]; none for the size trained with.
            Proposals are made at that size in any case.
        region_side: a region is looked at on the two neighbouring scales at which it is about so large (the square root
            of its area in pixels): the classifier's crops are, with the paper's 224.
        merge: where the two scales become one by their maximum (maxout): "pooled", before the layers that are run on
            each region; "features", after them; "scores", after the classifying layer: the box is that of the scale
            with the better score.
    """

    refine: bool = False
    vote: bool = False
    scales: list[int] = field(default_factory=list)
    region_side: int = 224
    merge: Merge = "features"

    def __post_init__(self) -> None:
        for scale in self.scales:
            if not is_side(scale):
                raise ConfigError(f"inference.scales: {scale!r} is no shorter side of a picture, in pixels")
        if list(self.scales) != sorted(set(self.scales)):
            raise ConfigError(f"inference.scales {self.scales}: give them in rising order, each once")
        if self.region_side < 1:
            raise ConfigError(f"inference.region_side {self.region_side}: give 1 or more")
        if self.merge not in get_args(Merge):
            raise ConfigError(f"inference.merge {self.merge!r}: give {', '.join(get_args(Merge))}")
        for key in ("region_side", "merge"):
            value = getattr(self, key)
            if not self.scales and value != getattr(InferenceOptions, key):
                raise ConfigError(f"inference.{key} {value}: is about scales; name some, by inference.scales")
