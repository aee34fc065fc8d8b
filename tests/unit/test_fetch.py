"""Results one behind: the order of what happens, with CUDA's calls recorded on a CPU."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from backbones.engine import fetch as fetch_module
from backbones.engine.fetch import fetch

GPU = torch.device("cuda")
CPU = torch.device("cpu")


class Result:
    """A tensor on a GPU, and its copy."""

    def __init__(self, name: str, log: list[str]):
        self.name, self.log = name, log

    def to(self, device: str, *, non_blocking: bool) -> "Result":
        assert (device, non_blocking) == ("cpu", True)
        self.log.append(f"copy {self.name}")
        return self

    def clone(self) -> str:
        self.log.append(f"take {self.name}")
        return self.name


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of CUDA, in order."""
    done: list[str] = []

    class Event:
        def __init__(self, after: str):
            self.after = after

        def synchronize(self) -> None:
            done.append(f"wait for {self.after}")

    class Stream:
        def record_event(self) -> Event:
            return Event(done[-1])

    monkeypatch.setattr(fetch_module.torch.cuda, "current_stream", lambda device: Stream())
    return done


def computed(log: list[str], names: str) -> Iterator[tuple[str, list[Any]]]:
    for name in names:
        log.append(f"compute {name}")
        yield name, [Result(f"{name}1", log), Result(f"{name}2", log)]


def test_the_next_is_computed_before_one_is_waited_for(log: list[str]) -> None:
    found = []
    for key, tensors in fetch(computed(log, "abc"), GPU):
        found.append((key, tensors))
    assert found == [(key, [f"{key}1", f"{key}2"]) for key in "abc"]
    assert log == [
        *("compute a", "copy a1", "copy a2"),
        *("compute b", "copy b1", "copy b2"),
        *("wait for copy a2", "take a1", "take a2"),
        *("compute c", "copy c1", "copy c2"),
        *("wait for copy b2", "take b1", "take b2"),
        *("wait for copy c2", "take c1", "take c2"),
    ]


def test_nothing_comes_of_nothing(log: list[str]) -> None:
    assert list(fetch([], GPU)) == []


def test_on_a_cpu_results_are_those_that_were_made(log: list[str]) -> None:
    tensors = [torch.arange(3), torch.ones(2)]
    ahead = fetch(iter([("a", tensors), ("b", [])]), CPU)
    key, found = next(ahead)
    assert key == "a"
    assert [each is tensor for each, tensor in zip(found, tensors, strict=True)] == [True, True]
    assert list(ahead) == [("b", [])]
    assert not log
