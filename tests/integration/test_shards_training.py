"""Training and testing on shards through the commands: exact resume, any number of processes, a remote root."""

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
