"""The command `evaluate_classifier`: pictures of many shapes, ensembles, configurations, several processes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from commands import ROOT, launch
from PIL import Image

from backbones.evaluate import main
from backbones.models import get_model
from backbones.weights import WeightsMetadata, load_classifier, save_weights

CLASSES = ["ape", "bee", "cat", "dog", "eel", "fox", "gnu"]
PROTOCOLS = ["center", "10crop", "multiscale"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """val/<class>/: 13 pictures of seven classes and many shapes."""
    root, rng = tmp_path / "photos", np.random.default_rng(0)
    for number in range(13):
        folder = root / "val" / CLASSES[number % 7]
        folder.mkdir(parents=True, exist_ok=True)
        height, width = rng.integers(20, 70, 2) if number % 3 else (40, 60)
        low = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(low).resize((width, height), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return root


def weights(path: Path, name: str, seed: int, size: int, **changes: Any) -> Path:
    """A network with random weights that is for pictures of `size`."""
    torch.manual_seed(seed)
    options = {"width": 4}
    values: dict[str, Any] = {"mean": [120.0] * 3, "std": [40.0] * 3, "input_size": size, "test_resize": size + 8}
    metadata = WeightsMetadata("classification", name, options, CLASSES, **values | changes)
    save_weights(path, get_model(name, 7, **options).state_dict(), metadata)
    return path


@pytest.fixture
def members(tmp_path: Path) -> list[str]:
    """Networks of three architectures, two sizes and two ways of normalisation."""
    mean = np.random.default_rng(1).uniform(90, 150, (3, 32, 32)).tolist()
    return [
        str(weights(tmp_path / "resnet.safetensors", "resnet18", 1, 32, mean=mean)),
        str(weights(tmp_path / "vgg.safetensors", "vgg16_bn", 2, 64, std=[1.0] * 3)),
        str(weights(tmp_path / "cifar.safetensors", "cifar_plain8", 3, 32)),
    ]


def run(photos: Path, *arguments: str, output: Path) -> dict[str, dict[str, float]]:
    main(["--data.root", str(photos), "--workers", "0", "--output", str(output), *arguments])
    return json.loads(output.read_text())


def slow_scores(path: str, photos: Path, scales: list[int]) -> tuple[np.ndarray, list[int]]:
    """Multi-scale scores by the weights file's own network: windows of its last map, one after another."""
    model, metadata = load_classifier(path)
    model.double()
    files = sorted(photos.glob("val/*/*"))
    scores = np.zeros((len(files), 7))
    for row, file in zip(scores, files, strict=True):
        for scale in scales:
            picture = Image.open(file)
            factor = scale / min(picture.size)
            picture = picture.resize([round(side * factor) for side in picture.size], Image.Resampling.BILINEAR)
            for view in (picture, picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)):
                x = torch.tensor(np.asarray(view), dtype=torch.float64).permute(2, 0, 1)
                mean = torch.tensor(metadata.mean, dtype=torch.float64)
                if mean.ndim == 3:
                    mean = mean.mean((1, 2)) if mean.shape != x.shape else mean
                x = (x - mean.view(3, *(mean.shape[1:] or (1, 1)))) / torch.tensor(metadata.std)[:, None, None]
                row += slow_view(model, x[None], metadata.input_size) / (2 * len(scales))
    return scores, [CLASSES.index(file.parent.name) for file in files]


@torch.no_grad()
def slow_view(model: Any, x: torch.Tensor, size: int) -> np.ndarray:
    """Softmax of the mean of the logits of all windows."""
    if hasattr(model, "features"):
        convolutions, classifier = list(model.features), model.classifier
    else:
        convolutions, classifier = [m for stage in model.stages().values() for m in stage.modules], model.fc
    example, maps = torch.zeros(1, 3, size, size, dtype=x.dtype), x
    for module in convolutions:
        example, maps = module(example), module(maps)
    window = example.shape[2]
    logits = []
    for i in range(maps.shape[2] - window + 1):
        for j in range(maps.shape[3] - window + 1):
            features = model.avgpool(maps[:, :, i : i + window, j : j + window]).flatten(1)
            logits.append(classifier(features)[0])
    return torch.stack(logits).mean(0).softmax(0).numpy()


def error_rates(scores: np.ndarray, labels: list[int]) -> dict[str, float]:
    places = [list(np.argsort(-row)).index(label) for row, label in zip(scores, labels, strict=True)]
    return {f"top{n}_error": pytest.approx(100 * np.mean(np.array(places) >= n)) for n in (1, 5)}


def test_multi_scale_is_that_of_a_slow_plain_implementation(tmp_path: Path, photos: Path, members: list[str]) -> None:
    each = [slow_scores(path, photos, [64, 97]) for path in members]
    total = sum(scores for scores, _ in each)
    protocol = ("--protocol", "multiscale", "--scales", "64", "97", "--precision", "fp64")
    results = run(photos, "--model", *members, *protocol, output=tmp_path / "all.json")
    assert results == {"multiscale": error_rates(total, each[0][1])}
    single = run(photos, "--model", members[1], *protocol, output=tmp_path / "one.json")
    assert single == {"multiscale": error_rates(*each[1])}
    assert single != results
    default = run(photos, "--model", members[2], "--protocol", "multiscale", output=tmp_path / "default.json")
    assert default == {"multiscale": error_rates(*slow_scores(members[2], photos, [32, 37, 55, 69, 91]))}


def test_three_processes_count_as_one(tmp_path: Path, photos: Path, members: list[str]) -> None:
    arguments = ["--model", *members, "--protocol", *PROTOCOLS, "--batch_size", "16"]
    one, three = tmp_path / "one.json", tmp_path / "three.json"
    results = run(photos, *arguments, output=one)
    common = ["--data.root", str(photos), "--workers", "0", "--device", "cpu"]
    finished = launch(3, str(ROOT / "tools/evaluate_classifier.py"), *common, *arguments, "--output", str(three))
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("13 pictures, 3 network(s)") == 1  # one process prints
    assert json.loads(three.read_text()) == results
    assert results.keys() == set(PROTOCOLS)
    assert len({tuple(value.values()) for value in results.values()}) > 1
    counts = [error * 13 / 100 for rates in results.values() for error in rates.values()]
    assert counts == pytest.approx([round(count) for count in counts])


def test_a_configuration_names_networks_and_what_is_expected(
    tmp_path: Path, photos: Path, members: list[str], capsys: pytest.CaptureFixture
) -> None:
    config = {
        "model": members[:2],
        "protocol": ["center", "multiscale"],
        "scales": [64, 80],
        "data": {"root": str(photos)},
        "workers": 0,
        "flip": False,
        "expected": [
            {"metric": "multiscale.top1_error", "value": 50, "tolerance": 50, "source": "a guess"},
            {"metric": "10crop.top5_error", "value": 3.57, "tolerance": 0.1, "source": "Table 5"},
        ],
    }
    (tmp_path / "ensemble.yaml").write_text(yaml.safe_dump(config))
    main(["--config", str(tmp_path / "ensemble.yaml"), "--output", str(tmp_path / "a.json")])
    printed = capsys.readouterr()
    assert "13 pictures, 2 network(s)" in printed.out
    assert "multiscale.top1_error: expected 50 ± 50 (a guess), measured" in printed.out
    assert "10crop.top5_error: expected 3.57 ± 0.1 (Table 5), not measured" in printed.out
    assert "multiscale: 100%" in printed.err
    assert "26/26" in printed.err  # two networks
    main(["--config", str(tmp_path / "ensemble.yaml"), "--model", members[2], "--output", str(tmp_path / "b.json")])
    assert "13 pictures, 1 network(s)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--protocol", "multiscale", "--scales", "64", "48"], "scales 48: give 64 (the network's crops) to"),
        (["--protocol", "multiscale", "--scales", "64", "9000"], "with a shorter side of 9000 (at most"),
        (["--scales", "64"], "scales: add multiscale"),
        (["--protocol"], "protocol: name one or more"),
        (["--workers", "-1"], "workers -1"),
        (["--precision", "fp8"], "precision"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_bad_options_end_in_one_line(
    photos: Path, members: list[str], capsys: pytest.CaptureFixture, arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--model", *members, "--data.root", str(photos), "--workers", "0", *arguments])
    assert left.value.code == 2
    last = capsys.readouterr().err.rstrip("\n").split("\n")[-1]
    assert last.startswith("error: ")
    assert message in last


def test_a_network_for_pictures_too_large_for_a_dense_vgg_is_refused(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture
) -> None:
    path = weights(tmp_path / "huge.safetensors", "vgg16", 1, 4000)
    with pytest.raises(SystemExit) as left:
        main(["--model", str(path), "--data.root", str(photos), "--workers", "0", "--protocol", "multiscale"])
    assert left.value.code == 2
    assert "a VGG for pictures of 4000 pixels" in capsys.readouterr().err
