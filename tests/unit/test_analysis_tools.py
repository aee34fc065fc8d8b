"""The analyses' tools and console scripts run the same functions."""

import runpy
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "name", ["complexity", "signal_propagation", "layer_responses", "show_features", "plot_curves", "encode_features"]
)
def test_a_tool_and_its_script(name: str) -> None:
    main = runpy.run_path(str(ROOT / "tools" / f"{name}.py"))["main"]
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, function = scripts[f"resnet-{name.replace('_', '-')}"].split(":")
    assert main is getattr(import_module(module), function)
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == 0
