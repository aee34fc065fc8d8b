"""PyTorch's checkpoints from elsewhere, `.pth`, `.th` or safetensors: plain tensors by name; no code is run."""

import argparse
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from backbones.engine.checkpoint import refuse_compressed
from backbones.engine.pickle_limits import check_pickles
from backbones.errors import CheckpointError
from backbones.weights import load_state

_SAVE = "get it again, or save the network's state_dict()"
_WRAPPERS = ("state_dict", "model")  # akamaster's and many others; torchvision's own training script


def read_state(path: Path) -> dict[str, Tensor]:
    """Reads a state dict, as it is or as the entry `state_dict` or `model` of a checkpoint.

    A prefix `module.` of all names, as of DataParallel, is taken off.

    Raises:
        CheckpointError: the file can't be read, or holds anything but tensors by name.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    for wrapper in _WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not state:
        raise CheckpointError(f"{path}: holds no weights by name: {_SAVE}")
    for name, value in state.items():
        if not isinstance(name, str) or not _is_plain(value):
            raise CheckpointError(f"{path}: {name!r} is no plain tensor: {_SAVE}")
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return state


def outputs(path: Path, state: dict[str, Tensor], name: str) -> int:
    """How many outputs a convolution or linear layer has, by its weights.

    Raises:
        CheckpointError: there is no such layer.
    """
    if name not in state:
        raise CheckpointError(f"{path}: lacks {name}: the weights are of another architecture")
    if state[name].dim() < 2:
        raise CheckpointError(f"{path}: {name} has shape {tuple(state[name].shape)}: no weights of a layer")
    return len(state[name])


def fits(state: dict[str, Tensor], network: nn.Module) -> bool:
    """Whether a state has the names and shapes of a network's; counts of batches may be left out, as before 2018."""
    own = {name: tensor.shape for name, tensor in network.state_dict().items() if not _is_count(name)}
    return own == {name: tensor.shape for name, tensor in state.items() if not _is_count(name)}


def adapt_state(path: Path, state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The state as the network's own: in its types and with counts of batches.

    Raises:
        CheckpointError: names the first tensor that does not fit.
    """
    own = network.state_dict()
    state = {name: torch.tensor(0) for name in own if _is_count(name)} | state
    # Other shapes are left as they are for `load_state` to refuse.
    adapted = {
        name: tensor.to(own[name].dtype)
        if name in own and own[name].shape == tensor.shape and tensor.is_floating_point()
        else tensor
        for name, tensor in state.items()
    }
    load_state(network, adapted, str(path), assign=True)
    return _unshared(adapted)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            if "architecture" in (file.metadata() or {}):
                raise CheckpointError(f"{path}: is a weights file of this project already; use it as it is")
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: not a readable safetensors file ({' '.join(str(error).split())}): get it again"
        ) from error


def _read_pickle(path: Path) -> Any:
    # torchvision's training script keeps its arguments in its checkpoints: names and plain values.
    try:
        refuse_compressed(path)
        check_pickles(path)
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read ({error})") from error
    except Exception as error:  # a damaged archive fails in many ways, a pickle with code in UnpicklingError
        raise CheckpointError(
            f"{path}: not a checkpoint of plain tensors: damaged, of another format, or with code in it: {_SAVE}"
        ) from error


def _is_plain(value: object) -> bool:
    """A tensor whose every number is in the file: none that is only said to be large."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def _unshared(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, each with memory of its own, as a weights file needs them."""
    seen: set[int] = set()
    result = {}
    for name, tensor in state.items():
        storage = tensor.untyped_storage()
        shared = storage.data_ptr() in seen or storage.nbytes() != tensor.nbytes
        seen.add(storage.data_ptr())
        result[name] = tensor.clone() if shared else tensor
    return result


def _is_count(name: str) -> bool:
    return name.endswith(".num_batches_tracked")
