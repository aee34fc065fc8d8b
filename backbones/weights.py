"""Weights files that say what they are: tensors in safetensors, and in its metadata all that is needed to use them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from backbones.engine.checkpoint import write_atomically
from backbones.errors import CheckpointError, ConfigError
from backbones.models import StagedNetwork, get_model
from backbones.text import is_utf8

_FORMAT = "resnet-reproduction-1"
_SUM = "sha256"
LARGEST_SIDE = 10_000  # of a network's pictures, in pixels: what a file may ask for
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_FIRST_CONVOLUTIONS = ("conv1.weight", "features.0.weight")  # of ResNet and VGG


@dataclass
class WeightsMetadata:
    """What a weights file says of its network.

    Args:
        task: "classification", "detection", "localisation" (a per-class RPN) or "region classification" (the R-CNN step
            of localisation).
        architecture, options: the arguments of `get_model`.
        classes: names, in the order of the network's outputs (without background).
        mean, std: pixel values in 0..255 that the input is normalised with; `mean` is per channel (3) or per pixel
            (3, H, W).
        input_size: the side of the training crops.
        test_resize: the shorter side before cropping in tests; None leaves pictures as they are.
        color_order: of the input's channels, and of mean and std; `load_weights` makes RGB of it.
        batch_norm: whose statistics batch norm holds: "moving" averages of training, or "exact" ones over the training
            set.
        category_ids: a detection data set's own ids, in the order of `classes`.
        detector: the further arguments of `get_detector`.
    """

    task: Literal["classification", "detection", "localisation", "region classification"]
    architecture: str
    options: dict[str, Any]
    classes: list[str]
    mean: list
    std: list[float]
    input_size: int
    test_resize: int | None = None
    color_order: Literal["RGB", "BGR"] = "RGB"
    batch_norm: Literal["moving", "exact"] = "moving"
    category_ids: list[int] | None = None
    detector: dict[str, Any] = field(default_factory=dict)


def save_weights(path: Path, state: dict[str, Tensor], metadata: WeightsMetadata) -> None:
    """Writes a weights file, whole or not at all.

    Raises:
        CheckpointError: it can't be written.
    """
    texts = {"format": _FORMAT} | {name: json.dumps(value) for name, value in asdict(metadata).items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    texts[_SUM] = _digest(tensors, texts)
    try:
        write_atomically(path, lambda temporary: _write(temporary, tensors, texts))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: can't be written ({' '.join(str(error).split())[:150]})") from error


def _write(path: Path, tensors: dict[str, Tensor], texts: dict[str, str]) -> None:
    """`save_file`, and then its metadata, which come in random order, sorted: equal weights make equal files."""
    save_file(tensors, path, texts)
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":")).encode().ljust(size)
        if len(text) != size:
            raise ValueError(f"the header of {path} changed its length")
        file.seek(8)
        file.write(text)


def _digest(tensors: dict[str, Tensor], texts: dict[str, str]) -> str:
    """SHA-256 of names, types, shapes and values, and of the metadata."""
    digest = hashlib.sha256(json.dumps(sorted(texts.items())).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def find_weights(path: str | Path) -> Path:
    """The weights file that a `--model` or `--weights` names: itself, or the one in a run folder.

    Raises:
        CheckpointError: there is none.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / "weights.safetensors").is_file():
            what = "the run there has not finished" if (path / "run.json").exists() else "it is no run folder"
            raise CheckpointError(f"{path}: holds no weights.safetensors ({what})")
        return path / "weights.safetensors"
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file or run folder")
    return path


def load_weights(path: str | Path) -> tuple[dict[str, Tensor], WeightsMetadata]:
    """Reads a weights file (or a run folder's) onto the CPU.

    A network of BGR pictures becomes the same one of RGB pictures.

    Raises:
        CheckpointError: missing, damaged (by its checksum too, where it has one), or without the metadata that this
            project writes.
    """
    path = find_weights(path)
    if not is_utf8(str(path)):
        raise CheckpointError(f"{path}: safetensors can't open a file whose name is not UTF-8: rename it")
    try:
        with safe_open(path, "pt") as file:
            texts = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: not a readable safetensors file ({' '.join(str(error).split())[:150]})"
        ) from error
    metadata = _parse_metadata(path, texts)
    if texts.pop(_SUM, None) not in (None, _digest(state, texts)):
        raise CheckpointError(f"{path}: damaged: what it holds is not what was written (by its {_SUM}): get it anew")
    if metadata.color_order == "BGR":
        _to_rgb(path, state, metadata)
    return state, metadata


def _to_rgb(path: Path, state: dict[str, Tensor], metadata: WeightsMetadata) -> None:
    """Turns the channels of the input of a BGR classifier around, those of mean and std too."""
    first = next((name for name in _FIRST_CONVOLUTIONS if name in state), None)
    if metadata.task != "classification" or first is None or state[first].ndim != 4:
        raise CheckpointError(f"{path}: expects BGR pictures, and is no classifier that could be turned to RGB")
    state[first] = state[first].flip(1)
    metadata.mean, metadata.std, metadata.color_order = metadata.mean[::-1], metadata.std[::-1], "RGB"


def load_classifier(path: str | Path) -> tuple[StagedNetwork, WeightsMetadata]:
    """Rebuilds a classifier from its weights file or run folder, in eval mode.

    Raises:
        CheckpointError: the file can't be used or holds something else than a classifier.
    """
    state, metadata = load_weights(path)
    if metadata.task != "classification":
        raise CheckpointError(f"{path}: holds a {metadata.task} network, not a classifier")
    try:
        with torch.device("meta"):  # its memory comes with the weights, if they fit
            model = get_model(metadata.architecture, len(metadata.classes), **metadata.options)
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{path}: its metadata name a network that can't be built: {error}") from error
    load_state(model, state, str(path), assign=True)
    return model.float().eval(), metadata


def check_same_network(
    source: str, metadata: WeightsMetadata, name: str | None, options: Mapping[str, Any], key: str
) -> None:
    """Refuses weights of another network than a configuration asks for; options it does not name are the weights'.

    Args:
        source: what to call the weights in messages.
        name: the architecture asked for; None for any.
        options: those asked for.
        key: of the configuration, to which name and options belong: "model".

    Raises:
        CheckpointError: names what differs.
    """
    if name not in (None, metadata.architecture):
        raise CheckpointError(f"{source}: holds a {metadata.architecture}, the config asks for {key}.name {name}")
    for option, value in options.items():
        if metadata.options.get(option) == value:
            continue
        with torch.device("meta"):
            own, asked = (
                get_model(metadata.architecture, len(metadata.classes), **metadata.options | change)
                for change in ({}, {option: value})
            )
        # Defaults count too; what is printed of a network tells all that options change, but for 0 and 0.0.
        if repr(asked) != repr(own):
            raise CheckpointError(
                f"{source}: its network's options are {metadata.options}, the config asks for {key}.options.{option} "
                f"{value}"
            )


def load_state(model: Any, state: dict[str, Tensor], source: str, *, assign: bool = False) -> None:
    """`model.load_state_dict(state)`, every name and shape matching.

    Args:
        source: what to call the state in messages.
        assign: the model takes the tensors themselves (it may be one on the meta device).

    Raises:
        CheckpointError: names the first tensor that does not fit or holds something else than numbers.
    """
    own = model.state_dict()
    for name, tensor in own.items():
        if name not in state:
            raise CheckpointError(f"{source}: lacks {name}: the weights are of another architecture")
        if state[name].shape != tensor.shape:
            raise CheckpointError(
                f"{source}: {name} has shape {tuple(state[name].shape)}, this network's has {tuple(tensor.shape)}: "
                "the weights are of another architecture"
            )
        if state[name].is_floating_point() != tensor.is_floating_point():
            raise CheckpointError(f"{source}: {name} holds {state[name].dtype}, this network's {tensor.dtype}")
        if state[name].is_floating_point() and state[name].dtype not in _DTYPES:
            raise CheckpointError(f"{source}: {name} holds {state[name].dtype}: write it as one of 16 bits or more")
        if state[name].is_floating_point() and not state[name].float().isfinite().all():
            raise CheckpointError(f"{source}: {name} holds values that are not finite numbers")
        if name.endswith("running_var") and (state[name] < 0).any():
            raise CheckpointError(f"{source}: {name} holds a variance below 0")
    if unknown := sorted(state.keys() - own.keys()):
        raise CheckpointError(f"{source}: holds {unknown[0]}, this network does not: they are of another architecture")
    model.load_state_dict(state, assign=assign)


def _parse_metadata(path: Path, texts: dict[str, str]) -> WeightsMetadata:
    if texts.get("format") != _FORMAT:
        raise CheckpointError(f"{path}: has no metadata of this project (architecture, classes, preprocessing)")
    names = {f.name for f in fields(WeightsMetadata)}
    try:
        metadata = WeightsMetadata(**{name: json.loads(text) for name, text in texts.items() if name in names})
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: its metadata can't be read ({' '.join(str(error).split())[:150]})") from error
    problem = _problem(metadata)
    if problem:
        raise CheckpointError(f"{path}: its metadata's {problem}")
    return metadata


def _problem(metadata: WeightsMetadata) -> str | None:
    """What is wrong with metadata, which may come from anyone."""
    for name in ("task", "architecture"):
        if not isinstance(getattr(metadata, name), str):
            return f"{name} is not a text"
    for name in ("options", "detector"):
        if not isinstance(getattr(metadata, name), dict):
            return f"{name} is not a dictionary"
    if not (isinstance(metadata.classes, list) and all(isinstance(name, str) for name in metadata.classes)):
        return "classes is not a list of names"
    if metadata.color_order not in ("RGB", "BGR"):
        return "color_order is neither RGB nor BGR"
    if metadata.batch_norm not in ("moving", "exact"):
        return "batch_norm is neither moving nor exact"
    for name, value in (("input_size", metadata.input_size), ("test_resize", metadata.test_resize)):
        if not is_side(value) and not (name == "test_resize" and value is None):
            return f"{name} is not a whole number from 1 to {LARGEST_SIDE}"
    try:
        mean, std = np.array(metadata.mean, dtype=float), np.array(metadata.std, dtype=float)
    except (ValueError, TypeError):
        return "mean or std does not hold numbers"
    if mean.shape not in ((3,), (3, metadata.input_size, metadata.input_size)) or std.shape != (3,):
        return "mean or std is not one of three channels"
    if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
        return "mean or std holds a number that can't be"
    return None


def is_side(value: object) -> bool:
    """Whether a value from a file can be the side of a picture in pixels."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_SIDE
