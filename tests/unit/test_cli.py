"""From typed Python to a command line: every rule of `run_command`, and the help of every tool."""

import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from backbones.cli import run_command, run_commands
from backbones.errors import DataError

ROOT = Path(__file__).parents[2]
TOOLS = sorted((ROOT / "tools").glob("*.py"))


@dataclass
class Train:
    """How to train.

    Args:
        steps: so many.
        milestones: where the rate falls.
    """

    steps: int = 3
    milestones: list[int] = field(default_factory=list)


@dataclass
class Config:
    """Trains something.

    Args:
        train: the training.
        options: of the network.
        mode: this or that.
        root: a folder.
        names: several words.
        resume: go on.
        shuffle: mix them.
    """

    train: Train = field(default_factory=Train)
    options: dict[str, int | float | str] = field(default_factory=dict)
    mode: Literal["this", "that"] = "this"
    root: str | None = None
    names: list[str] = field(default_factory=list)
    resume: bool = False
    shuffle: bool = True


def read(*argv: str) -> Config:
    """The config that a command line gives."""
    read: list[Config] = []
    run_command(Config, read.append, argv=argv)
    return read[0]


def refused(capsys: pytest.CaptureFixture, run: Callable[[], Any], code: int = 2) -> str:
    """The one line on stderr with which `run` leaves."""
    with pytest.raises(SystemExit) as left:
        run()
    error = capsys.readouterr().err
    assert left.value.code == code
    assert error.endswith("\n")
    assert len(error.splitlines()) == 1
    return error


def test_defaults_are_the_dataclass_s() -> None:
    assert read() == Config()


def test_dotted_overrides_and_their_types() -> None:
    config = read("--train.steps", "7", "--train.milestones", "[2, 4]", "--options", "{width: 8, shortcut: A}")
    assert config == Config(train=Train(7, [2, 4]), options={"width": 8, "shortcut": "A"})
    assert read("--options.width", "8").options == {"width": 8}
    assert read("--mode=that", "--root", "null").mode == "that"


def test_a_bool_is_a_flag() -> None:
    assert read("--resume").resume is True
    assert read("--no_resume").resume is False
    assert read("--no_shuffle").shuffle is False


def test_a_list_is_separated_by_spaces() -> None:
    assert read("--names", "a", "b c", "--mode", "that").names == ["a", "b c"]


def test_a_config_file_is_overridden_by_what_comes_later(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("train: {steps: 5, milestones: [1]}\nresume: true\nnames: [x, y]\noptions: {width: 4}\n")
    config = read("--config", str(file), "--train.steps", "6")
    assert config == Config(train=Train(6, [1]), options={"width": 4}, names=["x", "y"], resume=True)


def test_print_config_gives_a_file_that_reads_back_the_same(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["--train.steps", "9", "--no_shuffle", "--names", "x", "--options", "{width: 4}"]
    with pytest.raises(SystemExit) as left:
        read(*arguments, "--print_config")
    assert left.value.code == 0
    (tmp_path / "c.yaml").write_text(capsys.readouterr().out)
    assert read("--config", str(tmp_path / "c.yaml")) == read(*arguments)


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--bogus", "1"], "--bogus"),
        (["stray"], "stray"),
        (["--train.bogus", "1"], "train.bogus"),
        (["--train.steps", "many"], "train.steps"),
        (["--train.steps", "1.5"], "train.steps"),
        (["--mode", "other"], "this.*that"),
        (["--options", "[1]"], "options"),
        (["--train.steps"], "train.steps"),
        (["--resume", "perhaps"], "resume|perhaps"),
    ],
)
def test_a_wrong_argument_is_named(capsys: pytest.CaptureFixture, argv: list[str], named: str) -> None:
    assert re.search(named, refused(capsys, lambda: read(*argv)))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("trian: {steps: 3}", "trian"),
        ("train: {stpes: 3}", "stpes"),
        ("train: {steps: [3]}", "train.steps"),
        ("train: 5", "train"),
        ("train: [1\nb: }", r"c.yaml"),
        ("just words", r"c.yaml"),
        ("- 1\n- 2", r"c.yaml"),
        ("a: \x00", r"c.yaml"),
        ("mode: !!python/object/apply:os.mkdir [sprung]", "c.yaml"),
    ],
)
def test_a_wrong_config_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, text: str, named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(text)
    assert named in refused(capsys, lambda: read("--config", "c.yaml"))
    assert not (tmp_path / "sprung").exists()


def test_a_missing_config_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        assert str(path) in refused(capsys, lambda path=path: read("--config", str(path)))


def score(files: list[str], metric: list[Literal["a", "b"]] = ["a"], loud: bool = False) -> None:  # noqa: B006
    """Scores files.

    Args:
        files: what to score.
        metric: how.
        loud: shout.
    """
    print(files, metric, loud)


def test_a_function_is_called_with_its_arguments(capsys: pytest.CaptureFixture) -> None:
    run_command(score, positional="files", argv=["x", "y", "--metric", "b", "a", "--loud"])
    assert capsys.readouterr().out == "['x', 'y'] ['b', 'a'] True\n"
    run_command(score, argv=["--files", "x", "y"])
    assert capsys.readouterr().out == "['x', 'y'] ['a'] False\n"


def test_a_required_list_is_asked_for(capsys: pytest.CaptureFixture) -> None:
    assert "files" in refused(capsys, lambda: run_command(score, argv=[]))
    assert "files" in refused(capsys, lambda: run_command(score, positional="files", argv=[]))
    assert "metric" in refused(capsys, lambda: run_command(score, argv=["--files", "x", "--metric", "c"]))


def fail_with(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        """Fails."""
        raise error

    return lambda: run_command(command, argv=[])


def test_errors_become_one_line_and_an_exit_code(capsys: pytest.CaptureFixture) -> None:
    assert refused(capsys, fail_with(DataError("x.png: broken\n  badly"))) == "error: x.png: broken badly\n"
    unforeseen = refused(capsys, fail_with(KeyError("k")), code=1)
    assert unforeseen == "error: KeyError: 'k' (a traceback with --debug)\n"
    assert refused(capsys, fail_with(KeyboardInterrupt()), code=130) == "interrupted\n"


@pytest.mark.parametrize("name", ["a/b", b"a/b"])
def test_a_missing_permission_is_the_users_to_mend(capsys: pytest.CaptureFixture, name: str | bytes) -> None:
    def run() -> None:
        raise PermissionError(13, "Permission denied", name)

    with pytest.raises(SystemExit) as left:
        run_command(run, argv=[])
    assert left.value.code == 2
    assert capsys.readouterr().err == "error: a/b: no permission to read or write it\n"


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture) -> None:
    def command() -> None:
        raise DataError("broken")

    with pytest.raises(SystemExit) as left:
        run_command(command, argv=["--debug"])
    error = capsys.readouterr().err
    assert left.value.code == 2
    assert "Traceback" in error
    assert error.endswith("error: broken\n")


def draw(count: int = 1) -> None:
    """Draws pictures.

    Args:
        count: so many.
    """
    print("drawn", count)


def erase() -> None:
    """Erases them."""
    raise DataError("nothing there")


def test_the_first_word_names_one_of_several_commands(capsys: pytest.CaptureFixture) -> None:
    commands = {"draw": draw, "erase": erase}
    run_commands(commands, "Art.", argv=["draw", "--count", "3"])
    assert capsys.readouterr().out == "drawn 3\n"
    assert refused(capsys, lambda: run_commands(commands, "Art.", argv=["erase"])) == "error: nothing there\n"
    assert "'paint' is no command: give draw or erase" in refused(
        capsys, lambda: run_commands(commands, "Art.", argv=["paint", "--count", "3"])
    )
    assert "--size" in refused(capsys, lambda: run_commands(commands, "Art.", argv=["draw", "--size", "3"]))
    with pytest.raises(SystemExit) as left:
        run_commands(commands, "Art.", argv=["--debug", "erase"])
    assert left.value.code == 2
    assert "Traceback" in capsys.readouterr().err


def test_commands_are_listed_and_help_by_themselves(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/art.py"])
    with pytest.raises(SystemExit) as left:
        run_commands({"draw": draw, "erase": erase}, "Art.", argv=["--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert "usage: art.py COMMAND" in text
    assert re.search(r"draw +Draws pictures\.\n +erase +Erases them\.", text)
    with pytest.raises(SystemExit) as left:
        run_commands({"draw": draw}, "Art.", argv=["draw", "--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: art.py draw ")
    assert "so many" in text


def test_a_reader_that_goes_away_is_no_error_but_told() -> None:
    program = "from backbones.cli import run_command\ndef f(): print('x\\n' * 999999)\nrun_command(f, argv=[])"
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 141  # as a shell has it: nobody takes it for done
    process.stderr.close()


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.stem)
def test_every_tool_helps(tool: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(tool), "--help"])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(tool), run_name="__main__")
    text = capsys.readouterr().out
    assert left.value.code == 0
    described = text.split("options:")[0].split("\n\n")[1]
    assert len(described) > 20
    assert "None" not in described
    for line in text.splitlines():
        if line.startswith("  --") and "--debug" not in line:
            option = line.split()[0].rstrip(",")
            after = text.split(line, 1)[1].split("\n  --")[0]
            if option.endswith(".help"):  # jsonargparse's own, of a class in a list
                continue
            assert len((line + after).split()) > 2, f"{option} says nothing of itself"


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.stem)
def test_every_tool_refuses_what_it_does_not_know(
    tool: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [str(tool), "--no_such_option", "1"])
    error = refused(capsys, lambda: runpy.run_path(str(tool), run_name="__main__"))
    assert error.startswith("error: ")
