"""JPEG files decoded on a GPU (nvJPEG): the CPU's pictures but for rounding, and a training run of them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from backbones.config import ClassificationData, ModelConfig, OptimizerConfig, PretrainConfig
from backbones.data.augment import RandomResizedCrop
from backbones.data.batches import encoded_loader
from backbones.data.folder import read_folder
from backbones.data.sampler import SampleKey
from backbones.data.transforms import NamedTransforms
from backbones.engine.loop import TrainOptions
from backbones.engine.schedule import ScheduleOptions
from backbones.train import pretrain

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no usable GPU"),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of smooth pictures, one of them a PNG, which a GPU does not decode."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for name in ("one", "two"):
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
                picture = coarse.resize((90 + i, 70 + 2 * i), Image.Resampling.BICUBIC)
                picture.save(folder / (f"{i}.png" if i == 3 else f"{i}.jpg"), quality=90)
    return tmp_path / "pictures"


def test_pictures_decoded_there_are_those_of_the_cpu(root: Path) -> None:
    dataset = read_folder(root, "train")
    load = encoded_loader(dataset, RandomResizedCrop(48, 0.2, 1.0), NamedTransforms([], 48), None, size=48)
    encoded = load([SampleKey(index, seed=index) for index in range(len(dataset))])
    expected, found = encoded.to(torch.device("cpu")), encoded.to(torch.device("cuda"), non_blocking=True)
    assert all(tensor.is_cuda for tensor in found)
    for name in ("mirrored", "labels", "color_shifts"):
        assert torch.equal(getattr(found, name).cpu(), getattr(expected, name)), name
    difference = (found.images.cpu().int() - expected.images.int()).abs().double().mean((1, 2, 3))
    assert expected.images.double().std() > 20  # pictures differ by more than that from each other
    assert difference.max() < 2


def test_a_run_decodes_there(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    losses = {}
    for decode in ("cpu", "gpu"):
        pretrain(
            PretrainConfig(
                model=ModelConfig("resnet18", {"width": 8}),
                data=ClassificationData(
                    name="folder",
                    root=str(root),
                    train_split="train",
                    test_split="val",
                    input_size=48,
                    test_resize=56,
                    augmentation="random_resized_crop",
                    decode=decode,
                ),
                train=TrainOptions(steps=3, batch_size=8, checkpoint_every=3, log_every=1, workers=2),
                optimizer=OptimizerConfig(lr=0.005),
                schedule=ScheduleOptions(name="constant"),
                output=str(tmp_path / decode),
                device="cuda",
            )
        )
        lines = [json.loads(line) for line in (tmp_path / decode / "metrics.jsonl").read_text().splitlines()]
        losses[decode] = [line["loss"] for line in lines if line["split"] == "train"]
    assert "goes on with the CPU" not in capsys.readouterr().out
    assert len(losses["gpu"]) == 3
    assert losses["gpu"] == pytest.approx(losses["cpu"], rel=0.1)  # pixels of two decoders and two ways to resize
