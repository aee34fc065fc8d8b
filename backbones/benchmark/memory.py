"""How much more memory a piece of work needs at its peak than was taken before it."""

import ctypes
import threading
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")
_PAUSE = 0.002  # seconds between two looks at the host's memory


# The members of glibc's `struct mallinfo2`: uordblks and hblkhd are the bytes in use, of heaps and of mappings.
_MEMBERS = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")


class _MallocInfo(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_size_t) for name in _MEMBERS)


def with_peak_memory(work: Callable[[], T], device: torch.device) -> tuple[T, int | None]:
    """What `work` returns, and the bytes it needed at its peak beyond those that were taken before it.

    On a GPU its own memory, exactly. On a CPU that of this process, looked at every few milliseconds while `work` runs
    (of a short peak a part can be missed; with another C library than glibc it is None). Loading processes are not
    counted.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = work()
        return result, torch.cuda.max_memory_allocated(device) - before
    in_use = _host_memory()
    if in_use is None:
        return work(), None
    first = peak = in_use()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(_PAUSE):
            peak = max(peak, in_use())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        result = work()
    finally:
        done.set()
        watcher.join()
    return result, peak - first


def _host_memory() -> Callable[[], int] | None:
    """Tells the bytes that this process has asked the C library for and not given back; None where it can't."""
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError, TypeError):
        return None
    mallinfo.restype = _MallocInfo

    def in_use() -> int:
        info = mallinfo()
        return info.uordblks + info.hblkhd

    return in_use
