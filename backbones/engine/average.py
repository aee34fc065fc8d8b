"""An exponential moving average of the weights, which is tested and kept in their place."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """The average of a model's parameters and floating-point buffers over the steps.

    Args:
        model: whose weights, as they are now, it starts with.
        decay: the share of the old average in the new; over the first n steps at most (1 + n) / (10 + n), so that the
            random weights of the start are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float):
        self._decay = decay
        self.updates = 0
        self.tensors = {name: tensor.detach().clone() for name, tensor in _weights(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Takes in the weights after a step."""
        self.updates += 1
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        current = [tensor.detach() for tensor in _weights(model).values()]
        get_ema_multi_avg_fn(decay)(list(self.tensors.values()), current, None)

    @torch.no_grad()
    def exchange(self, model: nn.Module) -> None:
        """Puts the average into the model and the model's weights here; a second time puts all back."""
        for name, tensor in _weights(model).items():
            kept = self.tensors[name].clone()
            self.tensors[name].copy_(tensor)
            tensor.copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"updates": self.updates, "tensors": self.tensors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there. Raises KeyError, TypeError or ValueError where a tensor is missing or misshapen."""
        self.updates = int(state["updates"])
        for name, tensor in self.tensors.items():
            if state["tensors"][name].shape != tensor.shape:
                raise ValueError(f"the average of {name} has another shape than it")
            tensor.copy_(state["tensors"][name])


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
