"""`prepare_data.py statistics`, and the list of commands that it belongs to."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from official_archives import picture

from backbones.data.statistics import load_statistics
from detection.prepare import COMMANDS, main


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for place, name in enumerate(["train/ape/a.png", "train/bee/b.png", "val/ape/c.png"]):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(picture(place, 12, "PNG"))
    return tmp_path


def refused(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    return capsys.readouterr().err


def test_prints_and_writes_them(root: Path, capsys: pytest.CaptureFixture) -> None:
    small = ["--input_size", "8", "--resize", "null", "--workers", "0"]
    main(["statistics", "--root", str(root), *small])
    text = capsys.readouterr().out
    found = load_statistics(root / "statistics_8.safetensors")
    assert found.count == 2
    assert "2 pictures of train, their centre 8x8" in text
    printed = re.search(r"^mean +([\d.]+) +([\d.]+) +([\d.]+)$", text, re.MULTILINE)
    assert printed is not None
    np.testing.assert_allclose([float(number) for number in printed.groups()], found.mean, atol=0.051)
    spread = re.search(r"^standard deviation +([\d.]+)", text, re.MULTILINE)
    assert spread is not None
    assert float(spread[1]) == pytest.approx(found.covariance[0, 0] ** 0.5, abs=0.051)
    error = refused(capsys, "statistics", "--root", str(root), *small)
    assert error == f"error: {root}/statistics_8.safetensors: is there already; replace it with --overwrite\n"
    main(["statistics", "--root", str(root), "--split", "val", "--overwrite", *small])
    assert load_statistics(root / "statistics_8.safetensors").count == 1


def test_cifar10_is_measured_and_nothing_written(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    pixels = np.full((2, 3072), 100, dtype=np.uint8)
    (folder / "test_batch").write_bytes(pickle.dumps({"data": pixels, "labels": [0, 1]}))
    sizes = ["--input_size", "32", "--resize", "null"]
    main(["statistics", "--name", "cifar10", "--root", str(tmp_path), "--split", "test", "--workers", "0", *sizes])
    assert re.search(r"^mean +100.0 +100.0 +100.0$", capsys.readouterr().out, re.MULTILINE)
    assert [path.name for path in tmp_path.iterdir()] == ["cifar-10-batches-py"]


def test_what_is_wrong_is_named(root: Path, capsys: pytest.CaptureFixture) -> None:
    assert "root" in refused(capsys, "statistics")
    assert "nowhere/train: no such folder" in refused(capsys, "statistics", "--root", str(root / "nowhere"))
    assert "input_size 0" in refused(capsys, "statistics", "--root", str(root), "--input_size", "0")
    assert "resize 100" in refused(capsys, "statistics", "--root", str(root), "--resize", "100")
    small = ["--input_size", "99", "--resize", "null", "--workers", "0"]
    assert "a.png: a picture of 12x12 is smaller" in refused(capsys, "statistics", "--root", str(root), *small)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_its_options_are(command: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert f"{command} [-h]" in text or f"{command} --" in text
    described, options = text.split("options:")
    assert "Example: python tools/prepare_data.py" in " ".join(described.split())
    for option in options.split("\n  --")[1:]:
        assert len(option.split("(type")[0].split()) > 4, option


def test_the_command_must_be_named(capsys: pytest.CaptureFixture) -> None:
    assert "a command is missing: give imagenet or statistics or shards or verify_shards or voc" in refused(capsys)
    assert "'coca' is no command: give imagenet or statistics" in refused(capsys, "coca", "--root", "x")
    assert "'--root' is no command" in refused(capsys, "--root", "x", "statistics")
