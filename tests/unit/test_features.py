"""What stages respond to: top responses against looking at everything, patches, and the command."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from backbones import get_model
from backbones.analysis.feature_figures import mosaic
from backbones.analysis.features import responding_channels, stage_maps, top_responses
from backbones.analysis.receptive_field import ReceptiveField, stage_fields
from backbones.analysis.samples import evenly_spaced, standardise
from backbones.analysis.show_features import crop_patch, main
from backbones.data.shapes import CLASS_NAMES
from backbones.weights import WeightsMetadata, save_weights


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 5), st.integers(1, 12), st.integers(0, 99))
def test_top_responses_are_those_of_looking_at_everything(pictures, channels, batch, count, seed) -> None:
    """The `count` pictures with the largest maximum, the earlier first where they are alike; however batched."""
    rng = np.random.default_rng(seed)
    maps = torch.from_numpy(rng.integers(0, 6, (pictures, channels, 3, 5))).float()  # few values: many are alike
    names = [10 * i for i in range(pictures)]
    batches = [(names[i : i + batch], {"s": maps[i : i + batch]}) for i in range(0, pictures, batch)]
    top = top_responses(batches, ["s"], count)["s"]
    for channel in range(channels):
        best = sorted(range(pictures), key=lambda i: (-float(maps[i, channel].max()), i))[:count]
        assert top.pictures[:, channel].tolist() == [names[i] for i in best]
        for rank, i in enumerate(best):
            row, column = int(top.rows[rank, channel]), int(top.columns[rank, channel])
            assert top.values[rank, channel] == maps[i, channel, row, column] == maps[i, channel].max()


def test_channels_are_spread_over_those_that_respond() -> None:
    maps = torch.zeros(2, 10, 2, 2)
    maps[1, [1, 2, 4, 5, 8]] = 1.0
    top = top_responses([([0, 1], {"s": maps})], ["s"], 2)["s"]
    assert responding_channels(top, 3) == [1, 4, 8]
    assert responding_channels(top, 9) == [1, 2, 4, 5, 8]
    assert responding_channels(top_responses([([0], {"s": maps[:1]})], ["s"], 2)["s"], 3) == []


def test_a_patch_is_where_the_response_comes_from() -> None:
    """conv1's first channel made to look for a bright pixel: the middle of each patch is that pixel."""
    network = get_model("cifar_resnet8", width=2).eval()
    with torch.no_grad():
        network.conv1.weight.zero_()
        network.conv1.weight[0, :, 1, 1] = 1
    rng = np.random.default_rng(0)
    pictures = np.zeros((6, 32, 32, 3), dtype=np.uint8)
    for picture in pictures:
        y, x = rng.integers(1, 31, 2)
        picture[y, x] = rng.integers(100, 256)
    maps = stage_maps(network, torch.from_numpy(pictures).permute(0, 3, 1, 2).float(), ["conv1"])
    top = top_responses([(range(6), maps)], ["conv1"], 6)["conv1"]
    field = stage_fields(network)["conv1"]
    brightness = []
    for rank in range(6):
        patch = crop_patch(pictures[top.pictures[rank, 0]], field, int(top.rows[rank, 0]), int(top.columns[rank, 0]))
        assert patch.shape == (3, 3, 3)
        assert (patch[1, 1] > 0).all()
        assert patch.sum() == patch[1, 1].sum()
        brightness.append(int(patch.sum()))
    assert brightness == sorted(brightness, reverse=True)
    assert sorted(top.pictures[:, 0].tolist()) == list(range(6))


def test_patches_end_at_the_picture() -> None:
    view = np.arange(8 * 8 * 3).reshape(8, 8, 3)
    field = ReceptiveField(size=5, stride=2, start=-2)
    assert np.array_equal(crop_patch(view, field, 0, 1), view[0:3, 0:5])
    assert np.array_equal(crop_patch(view, field, 3, 3), view[4:8, 4:8])


def test_stage_maps_are_the_networks_own_and_stop_where_they_may() -> None:
    network = get_model("resnet18", width=2).eval()
    x = torch.randn(2, 3, 64, 64)
    maps = stage_maps(network, x, ["conv3", "conv5"])
    assert list(maps) == ["conv3", "conv5"]
    torch.testing.assert_close(network.fc(maps["conv5"].mean((2, 3))), network(x))
    network.layer3 = None  # never reached
    assert torch.equal(stage_maps(network, x, ["conv3"])["conv3"], maps["conv3"])


def test_a_mosaic_keeps_patches_at_one_scale_in_the_middle_of_their_cells() -> None:
    red, blue = np.zeros((8, 8, 3), np.uint8), np.zeros((4, 8, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    sheet = mosaic([red, blue, red], columns=2)
    assert sheet.shape == (132, 132, 3)
    assert (sheet[:64, :64] == [255, 0, 0]).all()
    assert (sheet[16:48, 68:] == [0, 0, 255]).all()
    assert (sheet[:16, 68:] == 255).all()
    assert (sheet[68:, 68:] == 255).all()


@given(st.integers(1, 50), st.integers(1, 60))
def test_evenly_spaced_places(total, count) -> None:
    places = evenly_spaced(total, count)
    assert len(places) == min(total, count) == len(set(places))
    assert places[0] == 0
    assert count == 1 or places[-1] == total - 1
    gaps = np.diff(places)
    assert not len(gaps) or gaps.max() - gaps.min() <= 1


def test_standardised_pictures() -> None:
    views = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 8, 9, 3), dtype=np.uint8))
    out = standardise(views)
    assert out.shape == (4, 3, 8, 9)
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(3).double())
    torch.testing.assert_close(out.var((0, 2, 3), correction=0), torch.ones(3).double())
    assert (standardise(torch.full_like(views, 7)) == 0).all()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A network that was never trained, which is all that the command can tell."""
    torch.manual_seed(0)
    network = get_model("cifar_resnet8", len(CLASS_NAMES), width=4)
    metadata = WeightsMetadata(
        "classification", "cifar_resnet8", {"width": 4}, CLASS_NAMES, [127.5] * 3, [64.0] * 3, input_size=32
    )
    save_weights(tmp_path / "weights.safetensors", network.state_dict(), metadata)
    return tmp_path / "weights.safetensors"


def test_the_command(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--model", str(weights), "--data.name", "shapes", "--output", str(tmp_path / "out"), "--pictures", "12",
          "--channels", "2", "--patches", "4", "--examples", "1", "--stages", "conv4", "conv1", "--workers", "0",
          "--batch_size", "5"])  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("conv1: ")
    assert "receptive field 3 pixels, stride 1;" in lines[0]
    assert "of 16 channels respond; receptive field 25 pixels, stride 4;" in lines[1]
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == ["activations.png", "filters.png", "top_patches.png"]
    assert lines[2:] == [str(tmp_path / "out" / f"{kind}.png") for kind in ("filters", "activations", "top_patches")]
    for name in files:
        pixels = np.asarray(Image.open(tmp_path / "out" / name).convert("L"))
        assert len(np.unique(pixels)) > 20


def test_a_network_that_responds_to_nothing(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = get_model("cifar_resnet8", len(CLASS_NAMES), width=4)
    metadata = WeightsMetadata(
        "classification", "cifar_resnet8", {"width": 4}, CLASS_NAMES, [127.5] * 3, [64.0] * 3, input_size=32
    )
    torch.nn.init.constant_(network.bn1.bias, -1e6)
    save_weights(weights, network.state_dict(), metadata)
    main(["--model", str(weights), "--data.name", "shapes", "--output", str(tmp_path / "out"), "--pictures", "3",
          "--stages", "conv1", "--workers", "0"])  # fmt: skip
    assert capsys.readouterr().out.startswith("conv1: 0 of 4 channels respond")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--stages", "conv9"], ["conv9", "conv1, conv2"]),
        (["--channels", "0"], ["channels 0"]),
        (["--channels", "33"], ["channels 33", "32"]),
        (["--workers", "-1"], ["workers"]),
        (["--data.name", "folder"], ["data.root"]),
        (["--data.name", "cifar10"], ["airplane", "circle"]),
        (["--data.test_split", "all"], ["all"]),
        (["--model", "nowhere"], ["nowhere"]),
    ],
)
def test_bad_input_is_one_line(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--model", str(weights), "--data.name", "shapes", "--output", str(tmp_path / "out"), *arguments])
    message = capsys.readouterr().err
    assert exit_.value.code == 2
    assert message.count("\n") == 1
    assert all(word in message for word in words)


def test_an_output_that_is_a_file(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--model", str(weights), "--data.name", "shapes", "--output", str(weights)])
    assert exit_.value.code == 2
    assert str(weights) in capsys.readouterr().err
