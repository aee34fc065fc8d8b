"""What the tests on a GPU share: the arithmetic of a CPU, and settings put back as they were."""

import os
from collections.abc import Iterator

import pytest
import torch

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before the first use of cuBLAS


@pytest.fixture(autouse=True)
def full_float32() -> Iterator[None]:
    """Full float32 on the GPU, as on the CPU; and the settings that a test changes put back."""
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32
    torch.use_deterministic_algorithms(False)
