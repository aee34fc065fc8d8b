"""Batches one ahead: the next is copied to a GPU while the device works on the one before."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import torch


def prefetch(batches: Iterable[Any], device: torch.device) -> Iterator[Any]:
    """The same batches; on a GPU the next is on its way there when one is handed out, on a CPU nothing is done.

    Copies run on a stream of their own, beside the kernels, where they start from pinned memory. What makes the batches
    (a loader, or kernels that cut resident pictures) goes on as before, on the stream of the caller. An error in it
    comes in its turn: after the batches that were made before it.
    """
    if device.type != "cuda":
        yield from batches
        return
    copies = torch.cuda.Stream(device)
    ahead: deque[tuple[Any, torch.cuda.Event]] = deque()
    failure: Exception | None = None
    try:
        for batch in batches:
            # The memory of an old batch is taken again only when the steps that read it are done. What they read it in
            # were the steps before the one that this copy runs beside.
            copies.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(copies):
                ahead.append((move(batch, device), copies.record_event()))
            if len(ahead) > 1:
                yield _when_copied(*ahead.popleft(), device)
    except Exception as error:
        failure = error
    while ahead:
        yield _when_copied(*ahead.popleft(), device)
    try:
        if failure is not None:
            raise failure
    finally:
        del failure  # else it and this frame would hold each other, and with them the loader's processes


def move(batch: Any, device: torch.device) -> Any:
    """A batch on the device: by its own method `to`, where it has one; a list or tuple element by element.

    Whatever else it holds stays as it is.
    """
    if hasattr(batch, "to"):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(move(part, device) for part in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(move(part, device) for part in batch)
    return batch


def _when_copied(batch: Any, copied: torch.cuda.Event, device: torch.device) -> Any:
    """The batch, of which the device reads nothing before its copy is done; the host does not wait."""
    torch.cuda.current_stream(device).wait_event(copied)
    return batch
