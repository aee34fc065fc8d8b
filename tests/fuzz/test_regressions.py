"""The targets and the guard of the fuzzer, and all inputs that it has found something with."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from backbones.errors import DataError

from .guard import Finding, judge
from .targets import TARGETS

CRASHES = [path for path in sorted((Path(__file__).parent / "crashes").glob("*/*")) if path.suffix != ".txt"]
EVERYTHING = 2**14  # MiB


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("tests.fuzz.guard.SECONDS" if __name__.startswith("tests.") else "fuzz.guard.SECONDS", 0.2)
    yield


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
        assert judge(run, data if changed is None else changed, mebibytes=EVERYTHING, names=target.names) is None


@pytest.mark.parametrize("path", CRASHES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_was_found_once_is_found_no_more(path: Path, tmp_path: Path) -> None:
    target = TARGETS[path.parent.name]
    run = target.open(tmp_path)
    run(target.seeds()[0])  # what a parser takes the first time only is no input's fault
    assert judge(run, path.read_bytes(), mebibytes=target.mebibytes, names=target.names) is None


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


def test_the_guard_stops_what_takes_too_long(quick: None) -> None:
    def hang(data: bytes) -> None:
        while True:
            try:
                len(data)
            except Exception:  # as parsers have it
                pass

    assert kind(judge(hang, b"", mebibytes=100)).startswith("more than 0.2 s")
    assert kind(judge(lambda data: sum(range(10**8)), b"", mebibytes=100)).startswith("more than 0.2 s")


def test_the_guard_sees_memory_that_was_given_back() -> None:
    assert judge(lambda data: len(bytearray(2**24)), b"", mebibytes=100) is None
    assert kind(judge(lambda data: len(bytearray(2**28)), b"", mebibytes=100)) == "more than 100 MiB"
