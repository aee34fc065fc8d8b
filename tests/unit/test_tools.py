"""Tools and console scripts: each tool has one, each script is of one, and both run the same function."""

import runpy
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = sorted(path.stem for path in (ROOT / "tools").glob("*.py"))
SCRIPTS: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


def script_of(tool: str) -> str:
    return f"resnet-{tool.replace('_', '-')}"


def test_each_tool_has_a_script_and_each_script_a_tool() -> None:
    assert sorted(SCRIPTS) == sorted(map(script_of, TOOLS))


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_and_its_script(tool: str) -> None:
    module, function = SCRIPTS[script_of(tool)].split(":")
    main = runpy.run_path(str(ROOT / "tools" / f"{tool}.py"))["main"]
    assert main is getattr(import_module(module), function)
