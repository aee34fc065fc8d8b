"""Training and testing on shards through the commands: exact resume, any number of processes, a remote root."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import ROOT, launch, metrics, pretrain, record
from PIL import Image
from safetensors.torch import load_file

from backbones.data.folder import read_folder
from backbones.data.shards.packing import pack
from backbones.evaluate import main as evaluate_main
from backbones.train import main as pretrain_main
from detection.prepare import main as prepare_main


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """folder/{train,val}/<3 classes>/ and shards/{train,val}/ of the same pictures, 5 shards and 2."""
    rng = np.random.default_rng(0)
    for split, each in (("train", 7), ("val", 3)):
        for name in ("ape", "bee", "cow"):
            folder = tmp_path / "folder" / split / name
            folder.mkdir(parents=True)
            for number in range(each):
                pixels = rng.integers(0, 256, (36, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
        dataset = read_folder(tmp_path / "folder", split)
        pack(dataset, tmp_path / "folder" / split, tmp_path / "shards" / split, shard_size=20000, seed=0)
    return tmp_path


def options(data: Path, root: str | None = None) -> list[str]:
    return [
        *("--data.name", "shards", "--data.root", root or str(data / "shards"), "--data.test_resize", "32"),
        *("--data.augmentation", "random_resized_crop", "--data.shard_streams", "2", "--data.shard_window", "2"),
    ]


def same(one: Path, two: Path) -> None:
    a, b = (load_file(path / "weights.safetensors") for path in (one, two))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert metrics(one) == metrics(two)
    assert record(one)["results"] == record(two)["results"]


def test_a_run_goes_on_in_the_same_bits_wherever_the_shards_lie(data: Path) -> None:
    whole, parts = data / "whole", data / "parts"
    pretrain(whole, *options(data))
    pretrain(parts, *options(data))
    (parts / "checkpoints/step_00000006.pt").unlink()
    assert (parts / "checkpoints/step_00000004.pt").exists()  # 32 pictures: amid the second epoch of 21
    remote = [*options(data, f"file://{data}/shards"), "--data.cache", str(data / "cache"), "--train.workers", "2"]
    pretrain(parts, *remote, "--resume")
    same(whole, parts)
    assert list((data / "cache").glob("*.tar"))
    other = data / "other"
    pretrain(other, *options(data), "--data.shard_window", "1")
    assert metrics(other) != metrics(whole)


def test_two_processes_train_as_one(data: Path) -> None:
    plain = ["--model.name", "vgg16", "--model.options", "{width: 4, dropout: 0}", "--precision", "fp64"]
    small = ["--config", str(ROOT / "configs/shapes/classify_resnet.yaml"), "--data.input_size", "32"]
    small += ["--train.steps", "6", "--train.batch_size", "8", "--train.workers", "0", "--train.log_every", "2"]
    finished = launch(2, str(ROOT / "tools/pretrain.py"), *small, *options(data), *plain, "--output", str(data / "two"))
    assert finished.returncode == 0, finished.stderr
    pretrain_main([*small, *options(data), *plain, "--output", str(data / "one")])
    a, b = (load_file(data / name / "weights.safetensors") for name in ("one", "two"))
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-9, rtol=0)


def test_errors_on_shards_are_those_on_folders(data: Path, capsys: pytest.CaptureFixture) -> None:
    pretrain(data / "run", *options(data))
    small = ["--input_size", "32", "--resize", "32", "--workers", "0"]
    prepare_main(["statistics", "--name", "shards", "--root", str(data / "shards"), *small])
    wanted = ["--data.mean", "pixel", "--data.color", "pca", "--train.steps", "2"]
    pretrain(data / "colours", *options(data), *wanted)
    remote = [*options(data, f"file://{data}/shards"), "--data.cache", str(data / "cache")]
    pretrain(data / "remote", *remote, *wanted)
    same(data / "colours", data / "remote")
    results = []
    for name, root in (("folder", "folder"), ("shards", "shards")):
        capsys.readouterr()
        evaluate_main(
            ["--model", str(data / "run"), "--data.name", name, "--data.root", str(data / root), "--workers", "0"]
        )
        results.append(capsys.readouterr().out)
    assert results[0] == results[1]
    assert "9 pictures" in results[0]
    with pytest.raises(SystemExit):
        pretrain(data / "none", *options(data), "--data.shard_streams", "0")
    assert "data.shard_streams 0: give 1 or more" in capsys.readouterr().err


def test_statistics_behind_a_url_are_made_of_a_copy(data: Path, capsys: pytest.CaptureFixture) -> None:
    remote = [*options(data, f"file://{data}/shards"), "--data.cache", str(data / "cache"), "--data.mean", "pixel"]
    made = "prepare_data.py statistics --name shards --root COPY --split train --input_size 32 --resize 32"
    place, where = f"file://{data}/shards/statistics_32.safetensors", ", where COPY is a copy of the shards on disk"

    def error() -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            pretrain(data / "run", *remote)
        assert left.value.code == 2
        return capsys.readouterr().err

    message = error()
    assert f"{place}: no such file (data.mean, data.color want it)" in message
    assert f"{made}{where}" in message
    (data / "shards/statistics_32.safetensors").write_bytes(b"nonsense")
    assert f"{place}: not a file of statistics" in error()
    small = ["--input_size", "32", "--workers", "0", "--overwrite"]
    statistics = ["statistics", "--name", "shards", "--root", str(data / "shards"), *small]
    prepare_main([*statistics, "--resize", "40"])
    message = error()
    assert f"{place}: was made with" in message
    assert f"{made} --overwrite{where}" in message
    prepare_main([*statistics, "--resize", "32", "--split", "val"])
    assert f"{place}: is of other pictures than train holds now" in error()
    (data / "shards/statistics_32.safetensors").unlink()
    assert "no such file" in error()  # and the copy in the cache isn't taken for it
    assert [path for path in (data / "cache").iterdir() if path.suffix != ".tar"] == []


def test_a_small_cache_is_told_of(data: Path, capsys: pytest.CaptureFixture) -> None:
    remote = [*options(data, f"file://{data}/shards"), "--data.cache", str(data / "cache"), "--train.steps", "1"]
    pretrain(data / "run", *remote, "--data.cache_gigabytes", "5e-5")
    assert (
        "data.cache_gigabytes 5e-05: streams use 6 shards at a time, 0.000123 GB: shards will be fetched"
        in capsys.readouterr().out
    )
    pretrain(data / "run", *remote, "--overwrite")
    assert "streams use" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["folder", "shards"])
def test_classes_may_be_called_in_any_encoding(data: Path, name: str, capsys: pytest.CaptureFixture) -> None:
    for split in ("train", "val"):
        folder = data / "folder" / split
        (folder / "ape").rename(os.fsdecode(os.fsencode(folder) + b"/caf\xe9"))  # of a latin-1 system
        prepare_main(["shards", "--root", str(data / "folder"), "--output", str(data / "new"), "--split", split])
    place = ["--data.name", name, "--data.root", str(data / {"folder": "folder", "shards": "new"}[name])]
    wanted = ["--data.mean", "channel", "--protocol", "center", "10crop"]
    prepare_main(
        ["statistics", "--name", name, "--root", place[3], "--input_size", "32", "--resize", "32", "--workers", "0"]
    )
    pretrain(data / "run", *options(data), *place, *wanted, "--train.steps", "1")
    assert record(data / "run")["status"] == "finished"
    evaluate_main(["--model", str(data / "run"), *place, "--workers", "0", "--output", str(data / "results.json")])
    assert "9 pictures" in capsys.readouterr().out
