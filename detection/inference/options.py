"""How a trained detector is tested (Appendix B)."""

from dataclasses import dataclass, field
from typing import Literal

from backbones.errors import ConfigError


@dataclass(frozen=True)
class InferenceOptions:
    """What is added to the plain detector at test time; defaults add nothing.

    Args:
        refine: pool again from each region's regressed box; old and new predictions go on together.
        vote: each detection's box becomes a mean of those around it, after non-maximum suppression.
        scales: shorter sides of an image pyramid; none: the size trained at.
        merge: where the two scales of a region are merged by maxout.
    """

    refine: bool = False
    vote: bool = False
    scales: list[int] = field(default_factory=list)
    merge: Literal["pooled", "features", "scores"] = "features"

    def __post_init__(self) -> None:
        for scale in self.scales:
            if scale < 1:
                raise ConfigError(f"inference.scales {self.scales}: give shorter sides of 1 or more")
