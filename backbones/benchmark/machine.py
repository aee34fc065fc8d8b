"""What a benchmark ran on."""

import platform
from importlib.metadata import version
from typing import Any

from backbones.engine.run import describe_hardware, git_commit


def describe_machine() -> dict[str, Any]:
    """Hardware, versions and commit, under the names that they have in a run's record."""
    versions = {name: version(name) for name in ("torch", "torchvision", "numpy", "pillow")}
    return {
        "hardware": describe_hardware(),
        "versions": versions | {"python": platform.python_version()},
        "git_commit": git_commit(),
    }
