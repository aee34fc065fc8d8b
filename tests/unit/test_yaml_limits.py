"""Aliases and levels that configurations may have; what is refused is in tests/fuzz/test_bombs.py as well."""

import pytest

from backbones.errors import ConfigError
from backbones.yaml_limits import check_yaml


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]\n",
        "a: " + "[" * 45 + "]" * 45,
        "[" + "x, " * 99_000 + "]",
        "a: &a [1]\nb: *a\n",
    ],
)
def test_what_a_configuration_may_have(text: str) -> None:
    check_yaml(text)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a: " + "[" * 60 + "]" * 60, "levels"),
        ("[" + "x, " * 100_001 + "]", "stands for more than 100,000 values"),
        ("a: &a [" + "x, " * 999 + "]\nb: [" + "*a, " * 101 + "]", "stands for more than 100,000 values"),
        ("a: &a\n  b: *a", "stands within"),
    ],
)
def test_what_it_may_not(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        check_yaml(text)
