"""One optimizer step: against PyTorch's own calls, and captured against kernel by kernel."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backbones.engine import step as step_module
from backbones.engine.step import CapturedStep, Step, set_rate, why_not_captured, why_not_compiled
from backbones.errors import UserError

CPU = torch.device("cpu")
BATCHES = [torch.randn(6, 5, generator=torch.Generator().manual_seed(n)) for n in range(4)]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 2))


def loss(model: nn.Module, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    value = model(batch).square().mean()
    return value, {"batch_mean": batch.mean()}


def make_step(model: nn.Module, **options: Any) -> Step:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2, fused=True)
    return Step(model, optimizer, loss, **{"accumulate": 1, "precision": "fp32", "device": CPU} | options)


def gradient_norm(model: nn.Module) -> float:
    return float(torch.cat([p.grad.flatten() for p in model.parameters()]).norm())


def test_portions_add_up_to_their_mean() -> None:
    model, reference = network().eval(), network().eval()  # no batch norm or dropout of their own
    values = make_step(model, accumulate=4)(iter(BATCHES))
    mean = torch.stack([loss(reference, batch)[0] for batch in BATCHES]).mean()
    mean.backward()
    torch.optim.SGD(reference.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2).step()
    assert float(values["loss"]) == pytest.approx(mean.item())
    assert float(values["batch_mean"]) == pytest.approx(float(torch.stack(BATCHES).mean()))
    for parameter, expected in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected)


def test_the_gradients_norm_is_that_before_it_is_cut() -> None:
    model, reference = network().eval(), network().eval()
    values = make_step(model, clip_grad_norm=0.01, log_gradient_norm=True)(iter(BATCHES))
    loss(reference, BATCHES[0])[0].backward()
    assert float(values["gradient_norm"]) == pytest.approx(gradient_norm(reference))
    assert gradient_norm(reference) > 0.01
    assert gradient_norm(model) == pytest.approx(0.01, rel=1e-3)
    assert "gradient_norm" not in make_step(model)(iter(BATCHES))


def test_the_rate_is_set_as_a_number_or_on_the_device() -> None:
    optimizer = torch.optim.SGD(network().parameters(), lr=0.1)
    set_rate(optimizer, 0.5)
    assert optimizer.param_groups[0]["lr"] == 0.5
    on_device = optimizer.param_groups[0]["lr"] = torch.tensor(0.1)
    set_rate(optimizer, 0.25)
    assert optimizer.param_groups[0]["lr"] is on_device
    assert float(on_device) == 0.25


class FakeGraph:
    """What a CUDA graph does, on a CPU: a replay does again, in the same memory, what was done in the capture."""

    again: Any = None

    def replay(self) -> None:
        type(self).again()


@pytest.fixture
def graphs_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's calls that a capture makes; the capture itself runs nothing, as on a GPU."""

    class Nothing:
        def __init__(self, *arguments: Any, **options: Any):
            pass

        def __enter__(self) -> None:
            pass

        def __exit__(self, *arguments: Any) -> None:
            pass

        def wait_stream(self, other: Any) -> None:
            pass

    class Graph(Nothing):
        """Puts back what the step changed while it was "recorded"."""

        def __enter__(self) -> None:
            self.kept = [(tensor, tensor.clone()) for tensor in changing()]
            self.random_state = torch.get_rng_state()

        def __exit__(self, *arguments: Any) -> None:
            for tensor, before in self.kept:
                tensor.copy_(before)
            torch.set_rng_state(self.random_state)

    captured: list[CapturedStep] = []

    def changing() -> list[Tensor]:
        step = captured[0]._step
        momenta = [buffer for state in step.optimizer.state.values() for buffer in state.values()]
        return [*step.model.state_dict().values(), *momenta]

    def again() -> None:
        for name, value in captured[0]._step(iter(captured[0]._portions)).items():
            captured[0]._values[name].copy_(value)

    original = CapturedStep.__init__

    def remember(self: CapturedStep, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        captured[:] = [self]

    monkeypatch.setattr(CapturedStep, "__init__", remember)
    monkeypatch.setattr(FakeGraph, "again", staticmethod(again))
    for name, value in {
        "Stream": Nothing,
        "stream": Nothing,
        "graph": Graph,
        "CUDAGraph": FakeGraph,
        "current_stream": Nothing,
        "get_rng_state": lambda device: torch.get_rng_state(),
        "set_rng_state": lambda state, device: torch.set_rng_state(state),
    }.items():
        monkeypatch.setattr(step_module.torch.cuda, name, value)


def trained(take_step: Any, step: Step, first: int = 0) -> list[dict[str, float]]:
    def once(number: int) -> dict[str, Tensor]:
        torch.manual_seed(number)  # of dropout, as the loop does
        set_rate(step.optimizer, 0.1 / (number + 1))
        batches: Iterator[Tensor] = iter([BATCHES[number]])
        return take_step(batches)

    kept = [once(number) for number in range(first, len(BATCHES))]  # as the loop keeps them until it logs
    return [{name: float(value) for name, value in values.items()} for values in kept]


@pytest.mark.usefixtures("graphs_on_a_cpu")
def test_a_captured_step_leaves_what_a_plain_one_leaves() -> None:
    """The warm-up before the capture must leave no trace in weights, batch norm, momentum and random numbers."""
    plain, captured = make_step(network()), make_step(network())
    expected = trained(plain, plain)
    values = trained(CapturedStep(captured, captured.model), captured)
    assert values == expected
    for found, wanted in zip(captured.model.state_dict().values(), plain.model.state_dict().values(), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.usefixtures("graphs_on_a_cpu")
def test_all_portions_of_a_batch_are_in_the_graph() -> None:
    plain, captured = make_step(network(), accumulate=2), make_step(network(), accumulate=2)
    take_step = CapturedStep(captured, captured.model)
    for start in (0, 2, 1):
        for one in (plain, captured):
            set_rate(one.optimizer, 0.1 / (start + 1))
        torch.manual_seed(start)
        expected = plain(iter(BATCHES[start:]))
        torch.manual_seed(start)
        rest = iter(BATCHES[start:])
        values = take_step(rest)
        assert {name: float(value) for name, value in values.items()} == {n: float(v) for n, v in expected.items()}
        assert len(list(rest)) == len(BATCHES) - start - 2  # it took its portions and no more
    for found, wanted in zip(captured.model.state_dict().values(), plain.model.state_dict().values(), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.usefixtures("graphs_on_a_cpu")
def test_a_captured_run_resumes_to_the_same_bits() -> None:
    whole, first, second = (make_step(network()) for _ in range(3))
    expected = trained(CapturedStep(whole, whole.model), whole)
    take_step = CapturedStep(first, first.model)
    for number in range(2):
        torch.manual_seed(number)
        set_rate(first.optimizer, 0.1 / (number + 1))
        take_step(iter([BATCHES[number]]))
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    assert trained(CapturedStep(second, second.model), second, first=2) == expected[2:]
    for found, wanted in zip(second.model.state_dict().values(), whole.model.state_dict().values(), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.usefixtures("graphs_on_a_cpu")
@pytest.mark.parametrize("failing", [1, 2, 4])  # calls of the loss: the first and second are warm-up, then the capture
def test_a_capture_that_fails_leaves_no_trace(failing: int) -> None:
    """The steps are those that were never to be captured, to the bit; so also after steps that left momenta."""
    for earlier in (False, True):
        plain, captured = make_step(network()), make_step(network())
        if earlier:
            trained(plain, plain), trained(captured, captured)
        calls = 0

        def fail(model: nn.Module, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            nonlocal calls
            calls += 1
            value = loss(model, batch)
            if calls == failing:
                raise RuntimeError("not permitted\nin a capture")
            return value

        captured._compute_loss = fail
        reasons: list[str] = []
        take_step = CapturedStep(captured, captured.model, reasons.append)
        assert trained(take_step, captured) == trained(plain, plain)
        assert reasons == ["not permitted in a capture"]
        assert calls == failing + len(BATCHES)
        assert isinstance(captured.optimizer.param_groups[0]["lr"], float)
        for found, wanted in zip(captured.model.state_dict().values(), plain.model.state_dict().values(), strict=True):
            assert torch.equal(found, wanted)


@pytest.mark.usefixtures("graphs_on_a_cpu")
def test_without_a_way_to_go_on_a_failed_capture_is_an_error() -> None:
    step = make_step(network())
    step._compute_loss = lambda model, batch: 1 / 0
    with pytest.raises(ZeroDivisionError):
        CapturedStep(step, step.model)(iter(BATCHES))


@pytest.mark.usefixtures("graphs_on_a_cpu")
def test_what_is_wrong_with_the_data_ends_the_run() -> None:
    def fail(model: nn.Module, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        raise UserError("a damaged picture")

    step = make_step(network())
    step._compute_loss = fail
    with pytest.raises(UserError, match="damaged"):
        CapturedStep(step, step.model, lambda reason: pytest.fail(reason))(iter(BATCHES))


def test_where_a_step_can_t_be_captured_the_reason_is_given() -> None:
    gpu = torch.device("cuda")
    assert why_not_captured(gpu, 1) is None
    assert "need a GPU" in str(why_not_captured(CPU, 1))
    assert "2 processes" in str(why_not_captured(gpu, 2))


def test_where_nothing_can_be_compiled_the_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("no compiler\nanywhere")

    monkeypatch.setattr(torch, "compile", fail)
    assert why_not_compiled(CPU) == "no compiler anywhere"
