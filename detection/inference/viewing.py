"""How pictures are shown to a network that is tested."""

from typing import TypedDict

from backbones.engine.acceleration import Precision
from backbones.engine.distributed import World


class Viewing(TypedDict):
    """Keyword arguments that running a network over a data set takes.

    Args:
        shorter, longest: the sides of the pictures, see `resize_scale`.
        world: the processes that share the pictures.
        precision: of the network's arithmetic.
        workers: processes that load pictures, for each process.
    """

    shorter: int
    longest: int
    world: World
    precision: Precision
    workers: int
