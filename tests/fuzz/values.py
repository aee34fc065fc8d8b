"""Values that parsers stumble over, and texts of all kinds made of them."""

import random
from typing import Any

NUMBERS: tuple[Any, ...] = (
    0, -0.0, 1, -1, 0.5, 1e-320, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**25,
    1e9, 1e38, 1e155, 1e308, -1e308, float("nan"), float("inf"), float("-inf"), True, False,
)  # fmt: skip
TEXTS = (
    "", " ", "0", "-1", "nan", "inf", "1e400", "1_000", "٣", "9" * 5000, "\0", "a\0b", "\ud800", "é", "\u202e", "\n",
    "../../etc/passwd", "/etc/passwd", "..", ".", "/", "a/b", "a\\b", "~", "$HOME", "%s%n", "{0}", "null", "x" * 300,
)  # fmt: skip


def hostile_value(rng: random.Random, depth: int = 2) -> Any:
    """Anything that JSON can hold, and more numbers than that."""
    kind = rng.randrange(8)
    if kind < 3:
        return rng.choice(NUMBERS)
    if kind < 5:
        return rng.choice(TEXTS)
    if kind == 5 or not depth:
        return None
    if kind == 6:
        return [hostile_value(rng, depth - 1) for _ in range(rng.randrange(5))]
    return {rng.choice(TEXTS): hostile_value(rng, depth - 1) for _ in range(rng.randrange(3))}


def change(value: Any, rng: random.Random, keys: tuple[str, ...] = ()) -> Any:
    """The same nested lists and dictionaries but for something within: changed, gone, doubled, or swapped."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        kind = rng.randrange(10)
        if kind == 0:
            return {k: v for k, v in value.items() if k != key}
        if kind == 1:
            return value | {rng.choice(keys or TEXTS): hostile_value(rng)}
        if kind == 2:
            return value | {key: value[rng.choice(list(value))]}
        return value | {key: change(value[key], rng, keys)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = rng.randrange(len(value))
        kind = rng.randrange(8)
        if kind == 0:
            return value[:place] + value[place + 1 :]
        if kind == 1:
            return [*value, value[place]]
        if kind == 2:
            return value * rng.choice((2, 3, 50))
        return [change(item, rng, keys) if at == place else item for at, item in enumerate(value)]
    if isinstance(value, int | float) and not isinstance(value, bool) and rng.random() < 0.5:
        return rng.choice((value + 1, value - 1, -value, value * 2, value / 2, float(value), str(value)))
    return hostile_value(rng)
