"""Error rates, crops and ensembles, against explicit loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from backbones import evaluate
from backbones.data.augment import resize_shorter
from backbones.data.datasets import ClassificationDataset
from backbones.engine.distributed import World
from backbones.errors import DataError
from backbones.models import get_model
from backbones.weights import WeightsMetadata

ALONE = World(0, 1, torch.device("cpu"))
MEAN, STD = [120.0, 110.0, 100.0], [60.0, 50.0, 40.0]


def dataset(sizes: list[tuple[int, int]], classes: int = 7) -> ClassificationDataset:
    """Noise of the given (width, height)s; labels go round."""
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]
    labels = np.arange(len(sizes)) % classes
    names = [f"class {k}" for k in range(classes)]
    return ClassificationDataset(names, labels, pictures.__getitem__, lambda index: f"picture {index}", "noise")


def network(seed: int, classes: int = 7, **changes: object) -> tuple[nn.Module, WeightsMetadata]:
    torch.manual_seed(seed)
    values = {"mean": MEAN, "std": STD, "input_size": 16, "test_resize": 18} | changes
    metadata = WeightsMetadata("classification", "cifar_plain8", {}, [f"class {k}" for k in range(classes)], **values)
    return get_model("cifar_plain8", classes).eval(), metadata


SIZES = [(20, 30), (40, 18), (18, 18), (33, 25), (19, 50)]


def plain_scores(model: nn.Module, picture: Image.Image, *, crops: int) -> Tensor:
    """Softmax scores by one picture at a time and one crop at a time."""
    scaled = resize_shorter(picture, 18)
    right, bottom = scaled.width - 16, scaled.height - 16
    places = [(0, 0), (right, 0), (0, bottom), (right, bottom), ((right + 1) // 2, (bottom + 1) // 2)]
    views = []
    for left, top in places if crops == 10 else places[4:]:
        view = scaled.crop((left, top, left + 16, top + 16))
        views += [view, view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)] if crops == 10 else [view]
    assert len(views) == crops
    total = torch.zeros(7)
    for view in views:
        values = (np.asarray(view).astype(np.float32) - np.float32(MEAN)) / np.float32(STD)
        with torch.no_grad():
            total += model(torch.from_numpy(values.transpose(2, 0, 1).copy())[None])[0].softmax(0)
    return total / crops


@pytest.mark.parametrize(("protocol", "crops"), [("center", 1), ("10crop", 10)])
@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_scores_are_the_mean_softmax_over_the_crops(protocol: str, crops: int, batch_size: int) -> None:
    pictures, (model, metadata) = dataset(SIZES), network(1)
    device = torch.device("cpu")
    options = {"device": device, "batch_size": batch_size, "workers": 0}
    scores = evaluate.class_scores(model, metadata, pictures, protocol, range(5), **options)
    expected = torch.stack([plain_scores(model, pictures.picture(i), crops=crops) for i in range(5)])
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-4)
    some = evaluate.class_scores(model, metadata, pictures, protocol, [3, 0], **options)
    torch.testing.assert_close(some, expected[[3, 0]], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("protocol", ["center", "10crop"])
def test_an_ensemble_votes_by_the_mean_of_its_softmaxes(protocol: str) -> None:
    pictures, networks = dataset(SIZES * 6), [network(1), network(2), network(3)]
    crops = 10 if protocol == "10crop" else 1
    scores = np.zeros((30, 7))
    for model, _ in networks:
        for index in range(30):
            scores[index] += plain_scores(model, pictures.picture(index), crops=crops).numpy() / 3
    results = evaluate.test_classifiers(networks, pictures, [protocol], world=ALONE, batch_size=8, workers=0)
    assert results == {protocol: slow_error_rates(scores, pictures.labels)}
    alone = evaluate.test_classifiers(networks[:1], pictures, [protocol], world=ALONE, batch_size=8, workers=0)
    assert alone != results


def slow_error_rates(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """In percent, by sorting each picture's scores."""
    wrong = {1: 0, 5: 0}
    for row, label in zip(scores, labels, strict=True):
        ranking = sorted(range(len(row)), key=lambda k: -row[k])
        for n in wrong:
            wrong[n] += label not in ranking[:n]
    return {f"top{n}_error": 100 * count / len(labels) for n, count in wrong.items()}


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 30), st.integers(0, 10**6))
def test_error_counts_are_those_of_a_plain_loop(classes: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = np.stack([rng.permutation(classes) for _ in range(count)]).astype(np.float32)
    labels = rng.integers(0, classes, count)
    total, top1, top5 = evaluate.error_rates(torch.from_numpy(scores), torch.from_numpy(labels))
    expected = slow_error_rates(scores, labels)
    assert total == count
    assert (100 * top1 / count, 100 * top5 / count) == (expected["top1_error"], expected["top5_error"])
    if classes <= 5:
        assert top5 == 0


def test_processes_share_the_pictures_and_add_their_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirteen pictures by two processes; the real two are in tests/integration."""
    pictures, networks = dataset((SIZES * 3)[:13]), [network(1)]
    options = {"batch_size": 4, "workers": 0}
    whole = evaluate.test_classifiers(networks, pictures, ["center"], world=ALONE, **options)
    for size in (2, 16):  # sixteen processes for thirteen pictures: some have none
        counts: list = []
        monkeypatch.setattr(
            evaluate, "gather_objects", lambda value, counts=counts: counts.append(value) or list(counts)
        )
        for rank in range(size):
            world = World(rank, size, torch.device("cpu"))
            results = evaluate.test_classifiers(networks, pictures, ["center"], world=world, **options)
        assert results == whole  # the last has gathered all
        assert sorted(c[0] for c in counts) == sorted(len(range(rank, 13, size)) for rank in range(size))


def test_a_mean_may_differ_from_pixel_to_pixel() -> None:
    images = torch.randint(0, 256, (2, 4, 5, 3), dtype=torch.uint8)
    mean, std = torch.rand(3, 4, 5) * 255, torch.tensor([2.0, 3.0, 4.0])
    normal = evaluate.normalize(images, mean, std)
    for b, y, x, c in [(0, 0, 0, 0), (1, 3, 4, 2), (0, 2, 1, 1)]:
        assert normal[b, c, y, x] == (images[b, y, x, c].float() - mean[c, y, x]) / std[c]
    flat = evaluate.normalize(images, torch.tensor([1.0, 2.0, 3.0]), std)
    assert flat[1, 2, 0, 3] == (images[1, 0, 3, 2].float() - 3) / 4


def test_a_picture_too_small_is_named() -> None:
    pictures, (model, metadata) = dataset([(20, 20), (12, 40)]), network(1, test_resize=None)
    with pytest.raises(DataError, match="picture 1: a picture of 12x40 is smaller than the crop of 16"):
        evaluate.test_classifiers([(model, metadata)], pictures, ["center"], world=ALONE, batch_size=2, workers=0)


def test_results_are_a_table() -> None:
    results = {"center": {"top1_error": 23.456, "top5_error": 7.0}}
    assert evaluate.format_errors(results).splitlines()[1].split() == ["center", "23.46", "7.00"]
