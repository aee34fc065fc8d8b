"""The moving average of weights against its formula."""

import pytest
import torch
from torch import nn

from backbones.engine.average import WeightAverage


def model(value: float) -> nn.Module:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    set_all(network, value)
    return network


def set_all(network: nn.Module, value: float) -> None:
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.fill_(value)


def test_the_formula() -> None:
    network = model(1)
    average = WeightAverage(network, 0.5)
    expected = 1.0
    for step, value in enumerate([3, 7, -2, 5, 5, 5, 5, 5, 5, 5], start=1):
        set_all(network, value)
        average.update(network)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    for name, tensor in average.tensors.items():
        assert tensor.tolist() == torch.full_like(tensor, expected).tolist() or torch.allclose(
            tensor, torch.full_like(tensor, expected)
        ), name
    assert average.tensors.keys() == {
        *("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var")
    }  # counters are not averaged


def test_exchanged_twice_all_is_as_before() -> None:
    network = model(1)
    average = WeightAverage(network, 0.9)
    set_all(network, 2)
    average.exchange(network)
    assert network[0].weight.mean() == 1
    assert network[1].num_batches_tracked == 2
    assert average.tensors["0.weight"].mean() == 2
    average.exchange(network)
    assert network[0].weight.mean() == 2


def test_a_checkpoint_brings_it_back() -> None:
    network = model(1)
    one, two = WeightAverage(network, 0.9), WeightAverage(model(5), 0.9)
    set_all(network, 2)
    one.update(network)
    two.load_state_dict(one.state_dict())
    for average in (one, two):
        average.update(model(3))
    assert all(torch.equal(one.tensors[name], two.tensors[name]) for name in one.tensors)
    with pytest.raises(KeyError):
        two.load_state_dict({"updates": 1, "tensors": {}})
