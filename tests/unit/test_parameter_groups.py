"""Biases may learn at another rate than weights."""

import pytest
import torch
from torch import nn

from backbones.engine.step import set_rate
from backbones.training import parameter_groups


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2, bias=False), nn.Linear(2, 2))
    layers[3].requires_grad_(False)
    return layers


def test_a_step_moves_biases_by_their_factor() -> None:
    layers = network()
    before = {name: p.detach().clone() for name, p in layers.named_parameters()}
    optimizer = torch.optim.SGD(parameter_groups(layers, 2), lr=1.0)
    for parameter in layers.parameters():
        parameter.grad = torch.ones_like(parameter)
    set_rate(optimizer, 0.125)
    optimizer.step()
    moved = {name: (before[name] - p).detach().unique().tolist() for name, p in layers.named_parameters()}
    for name, values in moved.items():
        factor = 0 if name.startswith("3.") else 2 if name.endswith("bias") else 1
        assert values == pytest.approx([0.125 * factor] * len(values), abs=1e-6), name


def test_one_rate_is_one_group() -> None:
    """As in checkpoints from before there was a choice."""
    (group,) = parameter_groups(network(), 1)
    assert len(group["params"]) == 5
    assert "lr_factor" not in group
