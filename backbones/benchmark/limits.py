"""What this machine can do at most: how fast it multiplies matrices, and how fast its memory moves bytes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from backbones.benchmark.measure import Stopwatch

_REPEATS = 10


@dataclass(frozen=True)
class Limits:
    """The rates of a machine.

    Args:
        flops: floating-point operations a second, by precision ("fp32", "bf16"); a multiply-add is two.
        bandwidth: bytes a second, read and written.
    """

    flops: dict[str, float]
    bandwidth: float


def probe_limits(device: torch.device, *, side: int | None = None, megabytes: int | None = None) -> Limits:
    """Measures the rates: the best of a few products of square matrices, and of a few copies.

    Args:
        side: of the matrices; by default large enough to keep the device busy.
        megabytes: of the buffer that is copied; by default far more than caches hold.
    """
    gpu = device.type == "cuda"
    side, megabytes = side or (8192 if gpu else 1536), megabytes or (2048 if gpu else 256)
    types = {"fp32": torch.float32, "bf16": torch.bfloat16}
    return Limits(
        {name: matrix_product_rate(device, dtype, side) for name, dtype in types.items()},
        copy_rate(device, megabytes * 2**20),
    )


def matrix_product_rate(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """Floating-point operations a second in the product of two (side, side) matrices.

    On a GPU, fp32 products run as convolutions do: in TF32 where cuDNN may use it.
    """
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    product = torch.empty(side, side, device=device, dtype=dtype)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        return 2 * side**3 / _best_seconds(lambda: torch.mm(a, b, out=product), device)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def copy_rate(device: torch.device, size: int) -> float:
    """Bytes a second, those read and those written, when `size` bytes are copied."""
    source, target = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    return 2 * size / _best_seconds(lambda: target.copy_(source), device)


def _best_seconds(work: Callable[[], object], device: torch.device) -> float:
    """The shortest of several times: a limit is what the machine does when nothing disturbs it."""
    watch, times = Stopwatch(device), []
    work()
    for _ in range(_REPEATS):
        watch.start()
        work()
        times.append(watch.stop())
    return min(times)
