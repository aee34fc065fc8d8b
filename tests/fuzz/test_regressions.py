"""The targets and the guard of the fuzzer, and all inputs that it has found something with."""

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from backbones.errors import DataError

from .guard import Finding, judge
from .minimising import minimise
from .targets import TARGETS, look

CRASHES = [path for path in sorted((Path(__file__).parent / "crashes").glob("*/*")) if path.suffix != ".txt"]


def kind(finding: Finding | None) -> str:
    return "" if finding is None else finding.kind


@pytest.mark.parametrize("name", TARGETS)
def test_valid_files_are_taken_and_mutated_ones_do_no_harm(name: str, tmp_path: Path) -> None:
    target, rng = TARGETS[name], random.Random(0)
    run, files = target.open(tmp_path), target.seeds()
    for data in files[:4]:
        run(data)
    for number in range(3):
        data = files[number % len(files)]
        changed = target.mutate(data, rng) if target.mutate else data[:-number]
        assert look(target, run, data if changed is None else changed) is None


@pytest.mark.parametrize("path", CRASHES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_was_found_once_is_found_no_more(path: Path, tmp_path: Path) -> None:
    target = TARGETS[path.parent.name]
    run = target.open(tmp_path)
    run(target.seeds()[0])  # what a parser takes the first time only is no input's fault
    assert look(target, run, path.read_bytes()) is None


def test_the_guard_tells_our_errors_from_all_others() -> None:
    def refuse(data: bytes) -> None:
        raise DataError("fuzzed.xml: no")

    def fail(data: bytes) -> None:
        raise IndexError

    assert judge(refuse, b"", mebibytes=100, names="fuzzed.xml") is None
    assert "does not name" in kind(judge(refuse, b"", mebibytes=100, names="other.xml"))
    assert kind(judge(fail, b"", mebibytes=100)).startswith("IndexError")
    assert judge(lambda data: exec("raise SystemExit(2)"), b"", mebibytes=100) is None
    assert kind(judge(lambda data: exec("raise SystemExit(1)"), b"", mebibytes=100)).startswith("exit code 1")


def test_the_guard_stops_what_takes_too_long() -> None:
    def hang(data: bytes) -> None:
        while True:
            with suppress(Exception):  # as parsers have it
                len(data)

    def look_long(run: Callable[[bytes], Any]) -> str:
        return kind(judge(run, b"", mebibytes=100, seconds=0.1))

    assert look_long(hang).startswith("more than 0.1 s")
    assert look_long(lambda data: sum(range(10**7))).startswith("more than 0.1 s")
    assert look_long(lambda data: sum(range(10**3))) == ""


def test_the_guard_sees_memory_that_was_given_back() -> None:
    assert judge(lambda data: len(bytearray(2**24)), b"", mebibytes=100) is None
    assert kind(judge(lambda data: len(bytearray(2**28)), b"", mebibytes=100)) == "more than 100 MiB"


def test_an_input_is_made_as_small_as_can_be() -> None:
    data = bytes(random.Random(0).randbytes(500)) + b"bad" + bytes(100) + b"worse" + bytes(77)
    assert minimise(data, lambda part: b"bad" in part and b"worse" in part) == b"badworse"
    assert minimise(data, lambda part: True, seconds=0) == data
