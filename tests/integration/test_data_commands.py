"""The commands of data sets as a user starts them: killed and started again, and interrupted."""

import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT, interruptible, wait_for
from PIL import Image

from detection.prepare import main as prepare_main


def tool(name: str, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "tools" / name), *arguments]


def archive_of_noise(path: Path, classes: int, each: int) -> dict[str, bytes]:
    """A training archive of files of noise, and the tree that is to become of it."""
    expected = {}
    with tarfile.open(path, "w") as outer:
        for number in range(classes):
            synset, file = f"n{number:08d}", BytesIO()
            with tarfile.open(fileobj=file, mode="w") as inner:
                for k in range(each):
                    info, content = tarfile.TarInfo(f"{synset}_{k}.JPEG"), os.urandom(500 + k)
                    info.size = len(content)
                    inner.addfile(info, BytesIO(content))
                    expected[f"train/{synset}/{synset}_{k}.JPEG"] = content
            info = tarfile.TarInfo(f"{synset}.tar")
            info.size = file.tell()
            file.seek(0)
            outer.addfile(info, file)
    return expected


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_kill_9_and_again(tmp_path: Path) -> None:
    archive, output = tmp_path / "train.tar", tmp_path / "out"
    expected = archive_of_noise(archive, classes=20, each=200)
    arguments = ["imagenet", "--train", str(archive), "--output", str(output)]
    process = subprocess.Popen(
        tool("prepare_data.py", *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    wait_for(lambda: (output / "train/n00000002").is_dir(), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    left = {name: content for name, content in tree(output).items() if not name.startswith(".")}
    assert 0 < len(left) < len(expected)
    assert left.items() <= expected.items()
    prepare_main(arguments)
    assert tree(output) == expected


def is_alive(process: Path) -> bool:
    """Whether /proc has it as more than a zombie."""
    try:
        return "zombie" not in (process / "status").read_text()
    except OSError:
        return False


@pytest.mark.parametrize("killed", [False, True])
def test_a_check_that_is_stopped_leaves_no_process_behind(tmp_path: Path, killed: bool) -> None:
    folder = tmp_path / "set/train/noise"
    folder.mkdir(parents=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (500, 500, 3), dtype=np.uint8)).save(folder / "0.jpg")
    for number in range(1, 4000):  # half a minute's work
        os.link(folder / "0.jpg", folder / f"{number}.jpg")
    command = tool("check_data.py", "--root", str(tmp_path / "set"), "--splits", "train", "--workers", "2")
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=interruptible,
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_for(lambda: len(children.read_text().split()) == 2, process)
    workers = [Path("/proc", number) for number in children.read_text().split()]
    time.sleep(0.5)  # Python forgets an interrupt that comes while it forks
    if killed:
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, error = process.communicate(timeout=60)  # the workers hold the pipes too
    assert process.returncode == (-signal.SIGKILL if killed else 130)
    assert killed or re.split(r"[\r\n]", error.rstrip())[-1] == "interrupted by SIGINT"
    assert "Traceback" not in error
    assert out == ""
    end = time.monotonic() + 10  # they have closed their pipes, and may need a moment more to be gone
    while any(map(is_alive, workers)):
        assert time.monotonic() < end, "a worker stays"
        time.sleep(0.01)
