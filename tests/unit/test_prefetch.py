"""Batches one ahead: the order of what happens, with CUDA's calls recorded on a CPU."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from backbones.engine import prefetch as prefetch_module
from backbones.engine.prefetch import move, prefetch
from backbones.errors import DataError

GPU = torch.device("cuda")
CPU = torch.device("cpu")


class Pair(NamedTuple):
    images: Tensor
    labels: Tensor


class Movable:
    def __init__(self, name: str, log: list[str]):
        self.name, self.log = name, log

    def to(self, device: torch.device, *, non_blocking: bool) -> "Movable":
        assert non_blocking
        self.log.append(f"copy {self.name}")
        return self


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of CUDA, in order; streams and events are names."""
    done: list[str] = []

    class Stream:
        def __init__(self, name: Any):
            self.name = name if isinstance(name, str) else "copies"

        def wait_stream(self, other: "Stream") -> None:
            done.append(f"{self.name} wait for {other.name}")

        def wait_event(self, event: str) -> None:
            done.append(f"{self.name} wait for {event}")

        def record_event(self) -> str:
            return f"event after {done[-1]}"

        def __enter__(self) -> None:
            done.append("begin copies")

        def __exit__(self, *error: Any) -> None:
            pass

    monkeypatch.setattr(prefetch_module.torch.cuda, "Stream", Stream)
    monkeypatch.setattr(prefetch_module.torch.cuda, "stream", lambda stream: stream)
    monkeypatch.setattr(prefetch_module.torch.cuda, "current_stream", lambda device: Stream("kernels"))
    return done


def made(log: list[str], names: str, failure: Exception | None = None) -> Iterator[Movable]:
    for name in names:
        log.append(f"make {name}")
        yield Movable(name, log)
    if failure is not None:
        raise failure


def test_the_next_batch_is_copied_before_one_is_handed_out(log: list[str]) -> None:
    for batch in prefetch(made(log, "abc"), GPU):
        log.append(f"use {batch.name}")
    safe = ["kernels", "begin copies"]  # memory is taken again only behind the kernels that read it
    assert [line.removeprefix("copies wait for ") for line in log] == [
        *("make a", *safe, "copy a"),
        *("make b", *safe, "copy b"),
        *("kernels wait for event after copy a", "use a"),
        *("make c", *safe, "copy c"),
        *("kernels wait for event after copy b", "use b"),
        *("kernels wait for event after copy c", "use c"),
    ]


def test_an_error_comes_after_the_batches_before_it(log: list[str]) -> None:
    ahead = prefetch(made(log, "ab", DataError("broken picture")), GPU)
    assert [next(ahead).name, next(ahead).name] == ["a", "b"]
    with pytest.raises(DataError, match=r"^broken picture$"):
        next(ahead)


def test_who_stops_early_closes_what_makes_the_batches(log: list[str]) -> None:
    closed = []

    def batches() -> Iterator[Movable]:
        try:
            yield from made(log, "abcdef")
        finally:
            closed.append(True)

    source = batches()
    ahead = prefetch(source, GPU)
    next(ahead)
    ahead.close()  # type: ignore[attr-defined]
    del source
    assert closed == [True]
    assert log.count("make c") == 0  # one ahead, not more


def test_on_a_cpu_batches_go_through_one_by_one(log: list[str]) -> None:
    batches = prefetch(made(log, "ab"), CPU)
    assert next(batches).name == "a"
    assert log == ["make a"]


def test_nothing_ahead_of_no_batches(log: list[str]) -> None:
    assert list(prefetch([], GPU)) == []


def test_what_a_batch_may_be() -> None:
    numbers = torch.arange(3)
    sample = object()
    pair = move(Pair(numbers, numbers), torch.device("meta"))
    assert isinstance(pair, Pair)
    assert pair.images.device.type == pair.labels.device.type == "meta"
    moved = move([numbers, (numbers, sample)], torch.device("meta"))
    assert moved[0].device.type == moved[1][0].device.type == "meta"
    assert moved[1][1] is sample
    assert type(moved) is list
    assert type(moved[1]) is tuple
