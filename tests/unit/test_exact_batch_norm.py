"""Exact batch-norm statistics against the mean and variance of all inputs at once."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from backbones.engine.batch_norm import average_batch_norm
from backbones.models import get_model


def test_one_layer_gets_the_whole_sets_statistics() -> None:
    """With equal batches the total variance is that of the pooled values, however the batches differ."""
    layer = nn.BatchNorm2d(3)
    batches = [3 * torch.randn(4, 3, 5, 5, dtype=torch.float64) + 10 * n for n in range(6)]
    assert average_batch_norm(layer, [batch.float() for batch in batches]) == 6
    values = torch.cat(batches).transpose(0, 1).flatten(1)
    torch.testing.assert_close(layer.running_mean.double(), values.mean(1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.running_var.double(), values.var(1, correction=0), rtol=1e-5, atol=1e-4)
    assert not layer.training


def test_deeper_layers_see_normalised_batches() -> None:
    """A single batch: then evaluation gives what training gives, in every layer."""
    torch.manual_seed(0)
    network = get_model("resnet18", 5, width=4).double()
    batch = torch.randn(6, 3, 48, 48, dtype=torch.float64)
    before = [p.clone() for p in network.parameters()]
    average_batch_norm(network, [batch])
    with torch.no_grad():
        tested = network(batch)
        trained = network.train()(batch)
    torch.testing.assert_close(tested, trained)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_fixed_stages_stay() -> None:
    network = get_model("resnet18", 5, width=4)
    network.freeze(["conv1"])
    average_batch_norm(network, [torch.randn(4, 3, 48, 48)])
    assert network.bn1.running_mean.eq(0).all()
    assert not network.layer1[0].bn1.running_mean.eq(0).any()


def test_a_network_without_batch_norm_needs_no_pass() -> None:
    network = get_model("vgg16", 5, width=4)
    assert average_batch_norm(network, iter([])) == 0
    assert not network.training


def test_several_processes_share_their_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes, played one after the other: the second adds what the first has measured."""
    batches = [torch.randn(4, 3, 5, 5) + n for n in range(5)]
    together = nn.BatchNorm2d(3)
    average_batch_norm(together, batches)
    sent: list[torch.Tensor] = []
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "all_reduce", lambda value: sent.append(value.clone()))
    average_batch_norm(nn.BatchNorm2d(3), batches[:2])
    monkeypatch.setattr(dist, "all_reduce", lambda value: value.add_(sent.pop(0)))
    layer = nn.BatchNorm2d(3)
    assert average_batch_norm(layer, batches[2:]) == 5
    torch.testing.assert_close(layer.running_mean, together.running_mean)
    torch.testing.assert_close(layer.running_var, together.running_var)
    assert not sent
