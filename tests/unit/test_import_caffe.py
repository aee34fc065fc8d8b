"""Caffe's files against a slow interpreter of their prototxts: the same outputs, whatever the encoding."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from caffe_networks import CaffeFiles, encode, encode_blob, resnet, vgg
from prototxt_interpreter import run
from safetensors import safe_open
from torch import Tensor

from backbones.import_weights import main
from backbones.importing.caffe import read_network
from backbones.models import get_model
from backbones.scores import normalize
from backbones.weights import WeightsMetadata, load_classifier

BGR_MEAN = np.array([103.939, 116.779, 123.68])


def import_file(folder: Path, content: bytes, arch: str, *arguments: str) -> Path:
    """Runs the command on a `.caffemodel`."""
    (folder / "net.caffemodel").write_bytes(content)
    output = folder / "weights.safetensors"
    command = ["--format", "caffe", "--input", str(folder / "net.caffemodel"), "--arch", arch, "--output", str(output)]
    main([*command, *arguments])
    return output


def picture(height: int, width: int) -> np.ndarray:
    """A random RGB picture, (H, W, 3)."""
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


def caffes_output(net: CaffeFiles, rgb: np.ndarray, last: str, mean: np.ndarray | None = None) -> np.ndarray:
    """What Caffe makes of a picture: BGR, a mean subtracted."""
    bgr = rgb[:, :, ::-1].transpose(2, 0, 1).astype(np.float64)
    return run(net.text, stored(net), bgr - (BGR_MEAN.reshape(3, 1, 1) if mean is None else mean))[last].reshape(-1)


def stored(net: CaffeFiles) -> dict[str, list[np.ndarray]]:
    """The blobs as float32 keeps them."""
    return {name: [blob.astype(np.float32) for blob in blobs] for name, blobs in net.blobs.items()}


def our_output(network: torch.nn.Module, metadata: WeightsMetadata, rgb: np.ndarray) -> Tensor:
    """What the imported network makes of it, in float64."""
    mean, std = torch.tensor(metadata.mean).double(), torch.tensor(metadata.std).double()
    with torch.no_grad():
        return network.double()(normalize(torch.from_numpy(rgb)[None], mean, std))[0]


def assert_equal(actual: Tensor, expected: np.ndarray) -> None:
    assert np.ptp(expected) > 0.1
    assert np.abs(actual.numpy() - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("depth", [50, 101])
def test_a_resnet_gives_caffes_outputs(depth: int, tmp_path: Path) -> None:
    """An odd size, so that the pool's rounding counts; 211 x 209 end as 7 x 7, which MSRA's last pool needs."""
    net = resnet(depth, 2, 7)
    output = import_file(
        tmp_path, encode(net.blobs, extra=["conv1_relu", "pool1"], double=depth == 101), f"resnet{depth}"
    )
    network, metadata = load_classifier(output)
    rgb = picture(211, 209)
    expected = caffes_output(net, rgb, "fc1000")
    actual = our_output(network, metadata, rgb)
    assert_equal(actual, expected)
    assert metadata.options == {"stride_in": "1x1", "pool": "caffe", "width": 2}
    assert (metadata.input_size, metadata.test_resize) == (224, 256)
    for other in ({"pool": "torch"}, {"stride_in": "3x3"}):  # what must be known of a network to use its weights
        wrong = get_model(f"resnet{depth}", 7, **metadata.options | other).eval()
        wrong.load_state_dict(network.state_dict())
        assert (our_output(wrong, metadata, rgb) - actual).abs().max() > 1e-3 * actual.abs().max()


@pytest.mark.parametrize("depth", [16, 19])
def test_a_vgg_gives_caffes_outputs(depth: int, tmp_path: Path) -> None:
    net = vgg(depth, 2, 7)
    network, metadata = load_classifier(import_file(tmp_path, encode(net.blobs, old=True, legacy=True), f"vgg{depth}"))
    rgb = picture(195, 221)
    assert_equal(our_output(network, metadata, rgb), caffes_output(net, rgb, "fc8"))
    assert metadata.options == {"pool": "caffe", "width": 2}
    assert metadata.std == [1, 1, 1]


def test_resnet_152_has_the_papers_layers(tmp_path: Path) -> None:
    """Every layer in its place: each convolution's and norm's weights are a number of their own."""
    net = resnet(152, 1, 3)
    for i, blobs in enumerate(net.blobs.values()):
        for blob in blobs:
            blob[...] = i + 1
    network, _ = load_classifier(import_file(tmp_path, encode(net.blobs), "resnet152"))
    order = list(net.blobs)
    block = network.layer3[35]
    assert (block.conv2.weight == order.index("res4b35_branch2b") + 1).all()
    assert (block.bn2.weight == order.index("scale4b35_branch2b") + 1).all()
    assert (network.layer2[7].conv1.weight == order.index("res3b7_branch2a") + 1).all()
    assert (network.layer4[0].downsample[0].weight == order.index("res5a_branch1") + 1).all()
    assert (network.layer4[2].bn3.bias == order.index("scale5c_branch2c") + 1).all()


@pytest.fixture(scope="module")
def small() -> CaffeFiles:
    return resnet(50, 1, 3)


@pytest.mark.parametrize(
    "how",
    [
        {"old": True},
        {"legacy": True},
        {"packed": False},
        {"double": True},
        {"double": True, "packed": False, "old": True, "legacy": True},
    ],
    ids=str,
)
def test_every_encoding_of_the_weights_is_read(how: dict[str, bool], small: CaffeFiles, tmp_path: Path) -> None:
    (tmp_path / "net.caffemodel").write_bytes(encode(small.blobs, **how))
    layers = read_network(tmp_path / "net.caffemodel").layers
    assert list(layers) == list(small.blobs)
    for name, blobs in stored(small).items():
        for read, blob in zip(layers[name], blobs, strict=True):
            assert np.array_equal(read.astype(np.float32).reshape(blob.shape), blob), name


def test_the_file_holds_the_sources_bgr_and_loading_makes_rgb_of_it(small: CaffeFiles, tmp_path: Path) -> None:
    output = import_file(tmp_path, encode(small.blobs), "resnet50")
    with safe_open(output, "pt") as file:
        kept, texts = file.get_tensor("conv1.weight"), file.metadata()
    assert texts["color_order"] == '"BGR"'
    assert texts["mean"] == "[103.939, 116.779, 123.68]"
    assert np.array_equal(kept, small.blobs["conv1"][0].astype(np.float32))
    network, metadata = load_classifier(output)
    assert metadata.color_order == "RGB"
    assert metadata.mean == [123.68, 116.779, 103.939]
    assert torch.equal(network.conv1.weight, kept[:, [2, 1, 0]])


def test_a_mean_picture_is_subtracted_pixel_by_pixel(
    small: CaffeFiles, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    mean = np.random.default_rng(2).uniform(80, 140, (1, 3, 224, 224)).astype(np.float32)
    (tmp_path / "mean.binaryproto").write_bytes(encode_blob(mean, legacy=True))
    arguments = ["--mean", str(tmp_path / "mean.binaryproto")]
    network, metadata = load_classifier(import_file(tmp_path, encode(small.blobs), "resnet50", *arguments))
    assert "mean one per pixel" in capsys.readouterr().out
    assert np.array_equal(np.array(metadata.mean, np.float32), mean[0, ::-1])
    rgb = picture(224, 224)
    assert_equal(our_output(network, metadata, rgb), caffes_output(small, rgb, "fc1000", mean[0].astype(np.float64)))


def test_the_command_says_what_it_assumed(small: CaffeFiles, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    import_file(tmp_path, encode(small.blobs), "resnet50")
    out = capsys.readouterr().out
    assert "resnet50" in out
    assert "BGR" in out
    assert "--mean ResNet_mean.binaryproto" in out
    assert "--classes" in out
    (tmp_path / "names.txt").write_text("n01\nn02\n\nn03\n")
    (tmp_path / "train").mkdir()
    for name in ("b", "c", "a"):
        (tmp_path / "train" / name).mkdir()
    (tmp_path / "train" / "readme.txt").write_text("")
    output = import_file(tmp_path, encode(small.blobs), "resnet50", "--classes", str(tmp_path / "names.txt"))
    assert load_classifier(output)[1].classes == ["n01", "n02", "n03"]
    assert "--classes" not in capsys.readouterr().out
    output = import_file(tmp_path, encode(small.blobs), "resnet50", "--classes", str(tmp_path / "train"))
    assert load_classifier(output)[1].classes == ["a", "b", "c"]


def without(name: str) -> Callable[[CaffeFiles], dict]:
    return lambda net: {key: blobs for key, blobs in net.blobs.items() if key != name}


def changed(name: str, change: Callable[[list[np.ndarray]], list[np.ndarray]]) -> Callable[[CaffeFiles], dict]:
    return lambda net: net.blobs | {name: change(net.blobs[name])}


@pytest.mark.parametrize(
    ("arch", "damage", "words"),
    [
        ("resnet50", without("bn4c_branch2b"), ["bn4c_branch2b"]),
        ("resnet50", without("fc1000"), ["fc1000"]),
        ("resnet50", changed("res2a_branch1", lambda b: [b[0][:-1]]), ["res2a_branch1", "(3, 1, 1, 1)"]),
        ("resnet50", changed("scale_conv1", lambda b: b[:1]), ["scale_conv1", "1 blobs"]),
        ("resnet50", changed("fc1000", lambda b: [b[0] * np.nan, b[1]]), ["fc1000", "finite"]),
        ("resnet50", changed("bn_conv1", lambda b: [b[0], b[1], b[2] * 0]), ["bn_conv1"]),
        ("resnet50", changed("bn_conv1", lambda b: [b[0], -b[1], b[2]]), ["bn_conv1"]),
        ("resnet50", changed("bn_conv1", lambda b: [b[0] * 1e30, b[1], b[2] * 1e-20]), ["bn1.running_mean", "finite"]),
        ("resnet50", changed("conv1", lambda b: []), ["conv1"]),
        ("resnet50", changed("conv1", lambda b: [b[0].reshape(-1)]), ["conv1", "4 dimensions"]),
        ("resnet50", changed("fc1000", lambda b: [np.zeros((0, 32)), np.zeros(0)]), ["fc1000"]),
        ("resnet50", lambda net: net.blobs | {"fc1001\n": net.blobs["fc1000"]}, [r"'fc1001\n'"]),
        ("resnet101", lambda net: net.blobs, ["res3b1_branch2a", "--arch resnet50"]),
        ("vgg16", lambda net: net.blobs, ["conv1_1", "--arch resnet50"]),
        ("resnet18", lambda net: net.blobs, ["--arch resnet18", "resnet152, vgg16"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line_that_names_the_layer(
    arch: str, damage: Callable, words: list[str], small: CaffeFiles, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    line = refusal(capsys, tmp_path, encode(damage(small)), arch)
    assert "net.caffemodel" in line or arch == "resnet18"
    assert all(word in line for word in words), line


def refusal(capsys: pytest.CaptureFixture, folder: Path, content: bytes, arch: str, *arguments: str) -> str:
    """The one line with which the command refuses a file."""
    with pytest.raises(SystemExit) as left:
        import_file(folder, content, arch, *arguments)
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert not (folder / "weights.safetensors").exists()
    return line


@pytest.mark.parametrize(
    ("arguments", "files", "words"),
    [
        (["--mean", "m"], {"m": b""}, ["m: "]),
        (["--mean", "m"], {"m": b"\x08"}, ["m: not a .binaryproto"]),
        (["--mean", "m"], {"m": encode_blob(np.ones((1, 3, 2, 2)))}, ["m: ", "(3, 224, 224)"]),
        (["--mean", "m"], {"m": encode_blob(np.ones((2, 3, 224, 224)))}, ["m: ", "three channels"]),
        (["--mean", "m"], {}, ["m: no such file"]),
        (["--classes", "c"], {}, ["c: "]),
        (["--classes", "c"], {"c": b"one\ntwo\n"}, ["c: holds 2", "has 3"]),
        (["--classes", "c"], {"c": b"one\ntwo\ntwo\n"}, ["c: holds 2", "has 3"]),
        (["--classes", "c"], {"c": b"\xff\xfe"}, ["c: "]),
    ],
)
def test_unusable_means_and_classes(
    arguments: list[str], files: dict[str, bytes], words: list[str], small: CaffeFiles, tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    option, name = arguments
    line = refusal(capsys, tmp_path, encode(small.blobs), "resnet50", option, str(tmp_path / name))
    assert all(word in line for word in words), line
