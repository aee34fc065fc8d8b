"""Error rates, crops, scales and ensembles, against explicit loops."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as tv

from backbones import evaluate
from backbones.data.augment import resize_shorter
from backbones.data.datasets import ClassificationDataset
from backbones.engine.distributed import World
from backbones.errors import ConfigError, DataError
from backbones.models import StagedNetwork, get_model
from backbones.scores import class_scores, normalize, paper_scales, summed_scores
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


def network(seed: int, classes: int = 7, **changes: object) -> tuple[StagedNetwork, WeightsMetadata]:
    torch.manual_seed(seed)
    values = {"mean": MEAN, "std": STD, "input_size": 16, "test_resize": 18} | changes
    metadata = WeightsMetadata("classification", "cifar_plain8", {}, [f"class {k}" for k in range(classes)], **values)
    return get_model("cifar_plain8", classes).eval(), metadata


SIZES = [(20, 30), (40, 18), (18, 18), (33, 25), (19, 50)]


PROTOCOLS = ["center", "10crop", "multiscale"]
SCALES = [16, 18, 27, 34, 46]  # 224, 256, 384, 480 and 640, times 16 / 224


def plain_scores(model: StagedNetwork, picture: Image.Image, protocol: str, *, flip: bool = True) -> Tensor:
    """Softmax scores by one view at a time, and one place of its score map at a time."""
    scaled = resize_shorter(picture, 18)
    if protocol == "center":
        views = [tv.center_crop(scaled, [16, 16])]
    elif protocol == "10crop":
        views = list(tv.ten_crop(scaled, [16, 16]))
    else:
        views = [resize_shorter(picture, scale) for scale in SCALES]
        views += [view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for view in views] if flip else []
    total = torch.zeros(7)
    for view in views:
        values = (np.asarray(view).astype(np.float32) - np.float32(MEAN)) / np.float32(STD)
        x = torch.from_numpy(values.transpose(2, 0, 1).copy())[None]
        with torch.no_grad():
            logits = plain_logits(model, x) if protocol == "multiscale" else model(x)[0]
        total += logits.softmax(0)
    return total / len(views)


def plain_logits(model: StagedNetwork, x: Tensor) -> Tensor:
    """The mean over the places of a window of 4x4 cells: a network for 16 pixels whose last map has stride 4."""
    for stage in model.stages().values():
        for module in stage.modules:
            x = module(x)
    maps = x[0].numpy()
    rows, columns = maps.shape[1] - 3, maps.shape[2] - 3
    total = np.zeros(7)
    for i in range(rows):
        for j in range(columns):
            features = maps[:, i : i + 4, j : j + 4].mean((1, 2))
            total += model.fc.weight.numpy() @ features + model.fc.bias.numpy()
    return torch.from_numpy(total / (rows * columns)).float()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_scores_are_the_mean_softmax_over_the_views(protocol: str, batch_size: int) -> None:
    pictures, (model, metadata) = dataset(SIZES), network(1)
    device = torch.device("cpu")
    options = {"device": device, "batch_size": batch_size, "workers": 0}
    scores = class_scores(model, metadata, pictures, protocol, range(5), **options)
    expected = torch.stack([plain_scores(model, pictures.picture(i), protocol) for i in range(5)])
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-4)
    some = class_scores(model, metadata, pictures, protocol, [3, 0], **options)
    torch.testing.assert_close(some, expected[[3, 0]], atol=1e-5, rtol=1e-4)


def test_mirror_images_can_be_left_out() -> None:
    pictures, (model, metadata) = dataset(SIZES[:2]), network(1)
    options = {"device": torch.device("cpu"), "batch_size": 64, "workers": 0}
    scores = class_scores(model, metadata, pictures, "multiscale", range(2), flip=False, **options)
    expected = torch.stack([plain_scores(model, pictures.picture(i), "multiscale", flip=False) for i in range(2)])
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-4)
    both = class_scores(model, metadata, pictures, "multiscale", range(2), **options)
    assert (scores - both).abs().max() > 1e-3


def test_one_scale_of_the_crop_s_size_is_the_centre_crop_of_a_square_picture() -> None:
    pictures, (model, metadata) = dataset([(16, 16), (30, 30)]), network(1, test_resize=16)
    options = {"device": torch.device("cpu"), "batch_size": 64, "workers": 0, "scales": [16], "flip": False}
    center = class_scores(model, metadata, pictures, "center", range(2), **options)
    dense = class_scores(model, metadata, pictures, "multiscale", range(2), **options)
    torch.testing.assert_close(dense, center, atol=1e-6, rtol=1e-5)


def test_the_paper_s_scales_follow_the_size_of_the_crops() -> None:
    assert paper_scales(224) == [224, 256, 384, 480, 640]
    assert paper_scales(112) == [112, 128, 192, 240, 320]
    assert paper_scales(16) == SCALES


def test_double_precision_is_kept_and_bfloat16_is_near() -> None:
    pictures, (model, metadata) = dataset(SIZES), network(1)
    options = {"device": torch.device("cpu"), "batch_size": 8, "workers": 0}
    for protocol in PROTOCOLS:
        single = class_scores(model.float(), metadata, pictures, protocol, range(5), **options)
        rough = class_scores(model, metadata, pictures, protocol, range(5), precision="bf16", **options)
        assert 1e-6 < (rough - single).abs().max() < 0.05
        double = class_scores(model.double(), metadata, pictures, protocol, range(5), precision="fp64", **options)
        assert (single.dtype, rough.dtype, double.dtype) == (torch.float32, torch.float32, torch.float64)
        torch.testing.assert_close(single, double.float(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_ensemble_votes_by_the_mean_of_its_softmaxes(protocol: str) -> None:
    pictures, networks = dataset(SIZES * 3), [network(1), network(2)]
    scores = np.zeros((15, 7))
    for model, _ in networks:
        for index in range(15):
            scores[index] += plain_scores(model, pictures.picture(index), protocol).numpy() / 2
    results = evaluate.test_classifiers(networks, pictures, [protocol], world=ALONE, batch_size=8, workers=0)
    assert results == {protocol: slow_error_rates(scores, pictures.labels)}
    alone = evaluate.test_classifiers(networks[:1], pictures, [protocol], world=ALONE, batch_size=8, workers=0)
    assert alone != results


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_each_network_of_an_ensemble_sees_pictures_its_own_way(protocol: str) -> None:
    pictures, first = dataset(SIZES * 3), network(1)
    torch.manual_seed(5)
    mean = np.random.default_rng(0).uniform(90, 160, (3, 32, 32)).tolist()
    names = first[1].classes
    metadata = WeightsMetadata("classification", "resnet18", {}, names, mean, [50.0] * 3, 32, 40)
    second = get_model("resnet18", 7, width=2).eval(), metadata
    options = {"device": torch.device("cpu"), "batch_size": 8, "workers": 0}
    scores = sum(class_scores(*member, pictures, protocol, range(15), **options) for member in (first, second))
    results = evaluate.test_classifiers([first, second], pictures, [protocol], world=ALONE, batch_size=3, workers=0)
    assert results == {protocol: slow_error_rates(scores.numpy(), pictures.labels)}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_picture_is_decoded_once_for_all_networks_that_see_the_same_of_it(protocol: str) -> None:
    """Sizes interleaved; the sums have the same bits as those of networks one by one."""
    networks = [network(1), network(2, input_size=17), network(3), network(4, mean=[90.0] * 3)]
    pictures, decoded = dataset(SIZES), Counter()

    def decode(index: int) -> Image.Image:
        decoded[index] += 1
        return pictures.picture(index)

    options = {"device": torch.device("cpu"), "batch_size": 2, "workers": 0}
    alone = [class_scores(*each, pictures, protocol, range(5), **options) for each in networks]
    together = summed_scores(networks, replace(pictures, picture=decode), protocol, range(5), **options)
    assert decoded == dict.fromkeys(range(5), 2)
    expected = torch.zeros(5, 7, dtype=torch.float64)
    for member in (0, 2, 3, 1):
        expected += alone[member]
    assert torch.equal(together, expected)


def test_scales_below_a_network_s_crops_are_refused() -> None:
    networks = [network(1), network(2, input_size=20, test_resize=20)]
    options = {"world": ALONE, "batch_size": 8, "workers": 0}
    for scales, what in ([30, 16], "scales 16: give 20"), ([10**6], "scales 1000000: .* to 10000"):
        with pytest.raises(ConfigError, match=what):
            evaluate.test_classifiers(networks, dataset(SIZES), ["multiscale"], scales=scales, **options)


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
    normal = normalize(images, mean, std)
    for b, y, x, c in [(0, 0, 0, 0), (1, 3, 4, 2), (0, 2, 1, 1)]:
        assert normal[b, c, y, x] == (images[b, y, x, c].float() - mean[c, y, x]) / std[c]
    flat = normalize(images, torch.tensor([1.0, 2.0, 3.0]), std)
    assert flat[1, 2, 0, 3] == (images[1, 0, 3, 2].float() - 3) / 4
    other = torch.stack([torch.full((9, 7), value) for value in (1.0, 2.0, 3.0)])  # of pictures of another size
    other[:, 0] += 0.5
    other[:, 8] -= 0.5
    torch.testing.assert_close(normalize(images, other, std), flat)


def test_a_picture_too_small_is_named() -> None:
    pictures, (model, metadata) = dataset([(20, 20), (12, 40)]), network(1, test_resize=None)
    with pytest.raises(DataError, match="picture 1: a picture of 12x40 is smaller than the crop of 16"):
        evaluate.test_classifiers([(model, metadata)], pictures, ["center"], world=ALONE, batch_size=2, workers=0)


def test_a_picture_like_a_thread_is_named_before_it_fills_the_memory() -> None:
    pictures, networks = dataset([(20, 20), (1, 9000)]), [network(1)]
    with pytest.raises(DataError, match="picture 1: a picture of 1x9000 is too large with a shorter side of 46"):
        evaluate.test_classifiers(networks, pictures, ["multiscale"], world=ALONE, batch_size=2, workers=0)


def test_results_are_a_table() -> None:
    results = {"center": {"top1_error": 23.456, "top5_error": 7.0}}
    assert evaluate.format_errors(results).splitlines()[1].split() == ["center", "23.46", "7.00"]
