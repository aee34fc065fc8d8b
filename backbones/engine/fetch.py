"""Results one behind: they come from a GPU while it computes the next, and the host does not wait for each."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

_Key = TypeVar("_Key")


def fetch(
    results: Iterable[tuple[_Key, Sequence[Tensor]]], device: torch.device
) -> Iterator[tuple[_Key, list[Tensor]]]:
    """The same results in the same order, their tensors on the CPU.

    From a GPU they are copied to pinned memory, behind the kernels that make them, and one is handed out when the next
    has been asked of the device. That memory is used again: what is handed out is a copy.

    Args:
        results: what each is of, whatever that may be, and tensors on `device`.
    """
    if device.type != "cuda":
        yield from ((key, list(tensors)) for key, tensors in results)
        return
    behind: deque[tuple[_Key, list[Tensor], torch.cuda.Event]] = deque()
    for key, tensors in results:
        copies = [tensor.to("cpu", non_blocking=True) for tensor in tensors]  # PyTorch pins what it makes so
        behind.append((key, copies, torch.cuda.current_stream(device).record_event()))
        if len(behind) > 1:
            yield _when_copied(*behind.popleft())
    while behind:
        yield _when_copied(*behind.popleft())


def _when_copied(key: _Key, copies: list[Tensor], copied: torch.cuda.Event) -> tuple[_Key, list[Tensor]]:
    copied.synchronize()
    return key, [copy.clone() for copy in copies]
