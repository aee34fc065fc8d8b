"""Small inputs of large ones."""

import time
from collections.abc import Callable


def minimise(data: bytes, still: Callable[[bytes], bool], *, seconds: float = 20) -> bytes:
    """Leaves out all parts, from halves down to single bytes, without which an input still does the same.

    Args:
        still: whether an input does.
        seconds: after which it is left as small as it is by then.
    """
    ends = time.monotonic() + seconds
    size = len(data) // 2
    while size:
        place = 0
        while place < len(data):
            if time.monotonic() > ends:
                return data
            shorter = data[:place] + data[place + size :]
            if still(shorter):
                data = shorter
            else:
                place += size
        size //= 2
    return data
