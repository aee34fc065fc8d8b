"""Weights files: enough to rebuild the network, and nothing that can hurt."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from backbones.errors import CheckpointError
from backbones.models import get_model
from backbones.weights import WeightsMetadata, find_weights, load_classifier, load_weights, save_weights


def metadata(
    architecture: str = "cifar_plain8", options: dict[str, Any] | None = None, **changes: Any
) -> WeightsMetadata:
    values: dict[str, Any] = {
        "task": "classification",
        "architecture": architecture,
        "options": options or {},
        "classes": ["a", "b", "ç"],
        "mean": [1.5, 2.5, 3.5],
        "std": [1.0, 2.0, 3.0],
        "input_size": 32,
        "test_resize": 36,
    }
    return WeightsMetadata(**values | changes)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A small network's weights."""
    path = tmp_path / "weights.safetensors"
    save_weights(path, get_model("cifar_plain8", 3).state_dict(), metadata())
    return path


def change_metadata(path: Path, **changes: Any) -> None:
    """Writes a weights file anew, with other texts in its metadata (None removes one) and without its checksum."""
    from safetensors import safe_open

    with safe_open(path, "pt") as opened:
        texts = opened.metadata() | {"sha256": None} | changes
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    save_file(tensors, path, {key: text for key, text in texts.items() if text is not None})


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("resnet18", {"width": 4}),
        ("resnet50", {"width": 4, "shortcut": "C", "stride_in": "3x3"}),
        ("plain18", {"width": 4}),
        ("vgg16_bn", {"width": 2}),
        ("cifar_resnet14", {"shortcut": "A"}),
    ],
)
def test_a_file_rebuilds_its_network_with_no_config(tmp_path: Path, architecture: str, options: dict) -> None:
    torch.manual_seed(1)
    network = get_model(architecture, 3, **options)
    network(torch.randn(4, 3, 64, 64))  # batch-norm statistics other than new ones
    network.eval()
    wanted = metadata(architecture, options, mean=torch.rand(3, 32, 32).double().tolist())
    save_weights(tmp_path / "weights.safetensors", network.state_dict(), wanted)
    for path in (tmp_path, tmp_path / "weights.safetensors"):  # a run folder, or the file
        rebuilt, found = load_classifier(path)
        assert found == wanted
        assert not rebuilt.training
        picture = torch.randn(2, 3, 64, 64)
        assert torch.equal(rebuilt(picture), network(picture))
    assert rebuilt.state_dict().keys() == network.state_dict().keys()
    assert all(parameter.requires_grad for parameter in rebuilt.parameters())


def test_channels_last_and_shared_layouts_are_saved(tmp_path: Path) -> None:
    network = get_model("resnet18", 3, width=4).to(memory_format=torch.channels_last)
    save_weights(tmp_path / "w", network.state_dict(), metadata("resnet18", {"width": 4}))
    state, _ = load_weights(tmp_path / "w")
    assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())


def test_equal_weights_make_equal_files(file: Path, tmp_path: Path) -> None:
    state, found = load_weights(file)
    found.classes[0] = 'an "ä" \\ \n\x01 \ud800'  # nothing that a folder may be called breaks the header
    files = [tmp_path / f"again {n}" for n in range(5)]
    for path in files:
        save_weights(path, state, found)
    assert len({path.read_bytes() for path in files}) == 1
    assert load_weights(files[0])[1] == found


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere: no such file"):
        find_weights(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="no run folder"):
        find_weights(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(CheckpointError, match="has not finished"):
        find_weights(tmp_path)


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_named(file: Path, share: float) -> None:
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: not a readable"):
        load_weights(file)


class Trap:
    """A pickle of this makes a folder when it is loaded without care."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_is_refused_and_not_run(file: Path, tmp_path: Path) -> None:
    trap = Trap(tmp_path / "sprung")
    for write in (lambda: torch.save(trap, file), lambda: file.write_bytes(pickle.dumps(trap))):
        write()
        with pytest.raises(CheckpointError, match=r"weights\.safetensors: not a readable"):
            load_weights(file)
    assert not trap.path.exists()


def test_a_foreign_safetensors_file_is_refused(file: Path) -> None:
    save_file({"x": torch.zeros(1)}, file)
    with pytest.raises(CheckpointError, match="no metadata of this project"):
        load_weights(file)


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": None},
        {"classes": "{broken"},
        {"classes": "3"},
        {"classes": "[" * 100_000},
        {"options": "[]"},
        {"mean": '["a", "b", "c"]'},
        {"mean": "[1, 2]"},
        {"mean": "[[1], [2, 3], 4]"},
        {"std": "[1, 0, 1]"},
        {"std": "[null, 1, 1]"},
        {"input_size": '"big"'},
        {"architecture": '"resnet9"'},
        {"architecture": '"resnet18"'},
        {"options": '{"width": 1000000}'},
        {"options": '{"shortcut": "D"}'},
        {"options": '{"num_classes": 5}'},
        {"options": '{"name": "vgg16"}'},
        {"options": '{"norm_layer": 5}'},
        {"classes": '["a", "b"]'},
        {"task": '"detection"'},
    ],
)
def test_metadata_without_sense_are_refused(file: Path, changes: dict[str, str | None]) -> None:
    change_metadata(file, **changes)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: ") as error:
        load_classifier(file)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 900


def test_no_flipped_bit_goes_unnoticed(file: Path) -> None:
    whole = file.read_bytes()
    state, metadata = load_weights(file)
    for place in [*range(0, len(whole), 997), *range(8, 600, 7)]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        file.write_bytes(damaged)
        try:
            tensors, texts = load_weights(file)
        except CheckpointError:
            continue
        # The name of the checksum itself, or a space at the end of the header.
        assert texts == metadata
        assert all(torch.equal(tensors[name], tensor) for name, tensor in state.items())
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="damaged: what it holds is not what was written"):
        load_weights(file)


def test_weights_of_another_architecture_name_the_first_tensor_that_does_not_fit(file: Path) -> None:
    cases = {
        "resnet18": "lacks bn1.weight",
        "cifar_plain14": r"lacks layer1.1.conv1.weight|lacks layer1.2",
    }
    change_metadata(file, architecture=json.dumps("cifar_plain14"))
    with pytest.raises(CheckpointError, match=cases["cifar_plain14"]):
        load_classifier(file)
    change_metadata(file, architecture=json.dumps("cifar_plain8"), options=json.dumps({"width": 8}))
    with pytest.raises(
        CheckpointError, match=r"conv1.weight has shape \(16, 3, 3, 3\), this network's has \(8, 3, 3, 3\)"
    ):
        load_classifier(file)
    save_weights(file, get_model("cifar_plain14", 3).state_dict(), metadata())
    with pytest.raises(CheckpointError, match=r"holds layer1\.1"):
        load_classifier(file)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    state = get_model("cifar_plain8", 3).state_dict()
    state["conv1.weight"][0, 0, 0, 0] = value
    save_weights(tmp_path / "w.safetensors", state, metadata())
    with pytest.raises(CheckpointError, match=r"conv1\.weight holds values that are not finite"):
        load_classifier(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    "changes",
    [
        {"test_resize": "a"},
        {"test_resize": 0},
        {"input_size": 10**8},
        {"input_size": True},
        {"classes": [1, 2, 3]},
        {"mean": [[[1.0, 2.0]]] * 3},
        {"mean": [float("nan")] * 3},
        {"std": [float("inf")] * 3},
    ],
    ids=str,
)
def test_nonsense_in_metadata_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    save_weights(tmp_path / "w.safetensors", get_model("cifar_plain8", 3).state_dict(), metadata(**changes))
    with pytest.raises(CheckpointError, match=rf"metadata's .*{next(iter(changes))}"):
        load_classifier(tmp_path / "w.safetensors")


@pytest.mark.parametrize("architecture", ["cifar_plain8", "resnet18", "vgg16"])
@pytest.mark.parametrize("per_pixel", [False, True])
def test_a_network_of_bgr_pictures_is_loaded_as_one_of_rgb(
    architecture: str, per_pixel: bool, tmp_path: Path
) -> None:  # fmt: skip
    """A width of 3 has other convolutions of three inputs too: they stay as they are."""
    torch.manual_seed(0)
    original = get_model(architecture, 3, width=3).eval().double()
    mean = torch.rand((3, 32, 32) if per_pixel else (3,)) * 255
    blue = metadata(architecture, {"width": 3}, color_order="BGR", mean=mean.tolist())
    save_weights(tmp_path / "w.safetensors", original.state_dict(), blue)
    network, loaded = load_classifier(tmp_path / "w.safetensors")
    assert loaded == metadata(architecture, {"width": 3}, mean=mean.tolist()[::-1], std=[3.0, 2.0, 1.0])
    rgb = torch.randint(0, 256, (2, 3, 32, 32)).double()

    def prepare(picture: torch.Tensor, how: WeightsMetadata) -> torch.Tensor:
        shift, scale = torch.tensor(how.mean).double(), torch.tensor(how.std).double().view(3, 1, 1)
        shift = shift if per_pixel else shift.view(3, 1, 1)
        return (picture - shift) / scale

    with torch.no_grad():
        expected, actual = original(prepare(rgb.flip(1), blue)), network.double()(prepare(rgb, loaded))
    assert torch.allclose(actual, expected, atol=1e-4 * expected.abs().max())


def test_bgr_pictures_of_something_else_than_a_classifier_are_refused(tmp_path: Path) -> None:
    state = get_model("cifar_plain8", 3).state_dict()
    save_weights(tmp_path / "w.safetensors", state, metadata(task="detection", color_order="BGR"))
    with pytest.raises(CheckpointError, match=r"w\.safetensors: expects BGR"):
        load_weights(tmp_path / "w.safetensors")
    del state["conv1.weight"]
    save_weights(tmp_path / "w.safetensors", state, metadata(color_order="BGR"))
    with pytest.raises(CheckpointError, match=r"w\.safetensors: expects BGR"):
        load_weights(tmp_path / "w.safetensors")


def test_others_may_read_it_as_the_umask_allows(file: Path) -> None:
    (file.parent / "plain").touch()
    assert file.stat().st_mode == (file.parent / "plain").stat().st_mode


def test_a_variance_below_zero_is_named(tmp_path: Path) -> None:
    state = get_model("cifar_resnet8", 3).state_dict()
    state["bn1.running_var"][2] = -0.5
    save_weights(tmp_path / "w.safetensors", state, metadata("cifar_resnet8"))
    with pytest.raises(CheckpointError, match=r"w\.safetensors: bn1.running_var holds a variance below 0"):
        load_classifier(tmp_path / "w.safetensors")


def test_a_place_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere/w\.safetensors: can't be written"):
        save_weights(tmp_path / "nowhere" / "w.safetensors", get_model("cifar_plain8", 3).state_dict(), metadata())
