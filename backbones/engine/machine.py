"""What something ran on: versions, the commit of the code, hardware."""

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


def git_commit() -> str | None:
    """The commit of the code that runs (not of the folder it was started in), with a + where files were changed."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def describe_machine(packages: Sequence[str] = ("torch", "torchvision", "numpy")) -> dict[str, Any]:
    """What something ran on, for its record: versions of Python and packages, the code's commit, hardware."""
    return {
        "versions": {name: version(name) for name in packages} | {"python": platform.python_version()},
        "git_commit": git_commit(),
        "hardware": describe_hardware(),
    }


def describe_hardware() -> dict[str, Any]:
    """CPU, number of cores, GPU and name of this machine."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "gpu": gpu,
        "host": platform.node(),
    }


def cpu_model() -> str:
    """The name of the CPU; its architecture where the system tells no more."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
