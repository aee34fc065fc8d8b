"""Precision and determinism of the arithmetic."""

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

Precision = Literal["fp32", "bf16", "fp64"]


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager:
    """The context in which forward passes run: bfloat16 where it is safe, or the network's own precision."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def parameter_dtype(precision: Precision) -> torch.dtype:
    """The type of weights: float32 for "fp32" and "bf16", float64 for "fp64" (for exact comparisons)."""
    return torch.float64 if precision == "fp64" else torch.float32


def set_determinism(deterministic: bool, *, one_size: bool = True) -> None:
    """Makes PyTorch choose deterministic algorithms and refuse those that have none.

    Args:
        one_size: whether all pictures have the same size; else cuDNN would look for its fastest algorithm again and
            again.
    """
    if deterministic:
        # cuBLAS is deterministic only with a workspace of fixed size.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic and one_size


def usable_cores() -> int:
    """Processor cores that this process may run on, which in a container can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
