"""Every kind of bad input through the command that it is given to: the exit code, and one line that says what to do."""

import importlib
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bad_configs
import bad_data
import bad_detections
import bad_files
import bad_paths
import pytest
from bad_inputs import Kind, Place, write_shared
from commands import ROOT

KINDS: list[Kind] = [
    *bad_configs.KINDS,
    *bad_data.KINDS,
    *bad_detections.KINDS,
    *bad_files.KINDS,
    *bad_paths.KINDS,
]
LONGEST = 60  # seconds that a command may take to refuse something


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shared(tmp_path_factory.mktemp("shared"))


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """A command that waits for ever is a failure."""

    def fail(*_: Any) -> None:
        raise TimeoutError("the command hangs")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(LONGEST)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def main_of(tool: str) -> Callable[..., None]:
    """The `main` that `tools/<tool>.py` calls."""
    module = re.search(r"from (\S+) import main", (ROOT / f"tools/{tool}.py").read_text())
    assert module is not None
    return importlib.import_module(module[1]).main


def pattern(message: str, place: Place) -> str:
    """The regular expression of a kind's message."""
    return re.escape(message.replace("HERE", str(place.here)).replace("SHARED", str(place.shared))).replace(
        re.escape("..."), ".+"
    )


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.tool}: {kind.name}")
def test_refused(kind: Kind, tmp_path: Path, shared: Path, capsys: pytest.CaptureFixture) -> None:
    place = Place(tmp_path, shared)
    arguments = [str(argument) for argument in kind.arguments(place)]
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main_of(kind.tool)(arguments)
    said = capsys.readouterr()
    *bars, line = said.err.rstrip("\n").split("\n")
    assert left.value.code == kind.code, said.err
    assert re.fullmatch(f"error: {pattern(kind.message, place)}", line), line
    assert all(re.search(r"/s\]|it/s|^\s*$", bar) for bar in bars), said.err
    assert line.isprintable()
    assert all(text.isprintable() for text in said.out.splitlines()), said.out


def test_the_kinds_are_many_and_differ() -> None:
    names = [(kind.tool, kind.name) for kind in KINDS]
    assert len(set(names)) == len(names) >= 100
    tools = {path.stem for path in (ROOT / "tools").glob("*.py")}
    assert {kind.tool for kind in KINDS} == tools


def test_nothing_was_sprung() -> None:
    """What the traps among the inputs would have made, had they been executed."""
    assert not Path("sprung").exists()


@pytest.mark.parametrize("name", ["a key twice", "a pipe as the config"])
def test_in_a_process_of_its_own(name: str, tmp_path: Path, shared: Path) -> None:
    (kind,) = (kind for kind in KINDS if kind.name == name)
    place = Place(tmp_path, shared)
    command = [sys.executable, ROOT / f"tools/{kind.tool}.py", *kind.arguments(place)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert re.fullmatch(f"error: {pattern(kind.message, place)}\n", ended.stderr), ended.stderr


def rows() -> list[str]:
    """The kinds as rows of the table in docs/bad_input.md."""
    messages = [re.sub(r"(.)\1{20,}", r"\1\1\1...", kind.message).replace("|", "\\|") for kind in KINDS]
    return [
        f"| {kind.name} | `{kind.tool}` | {kind.code} | {message} |"
        for kind, message in zip(KINDS, messages, strict=True)
    ]


def test_the_documented_kinds_are_these() -> None:
    page = (ROOT / "docs" / "bad_input.md").read_text()
    lines = page.split("| bad input | command | exit code | says, after `error: ` |\n")[1].splitlines()
    assert lines[1:] == rows()
    assert f"{len(KINDS)} kinds" in page


if __name__ == "__main__":
    print("\n".join(rows()))
