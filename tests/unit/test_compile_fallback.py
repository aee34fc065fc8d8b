"""Where the real network can't be compiled, training goes on without, with the same result to the bit."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from functorch.compile import make_boxed_func
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd

from backbones.engine import loop
from backbones.engine.distributed import World
from backbones.engine.loop import TrainOptions, train
from backbones.engine.run import open_run
from backbones.engine.state import TrainState
from backbones.errors import UserError

CPU = torch.device("cpu")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 2))


def loss(model: nn.Module, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    return model(batch).square().mean(), {}


def fail(graph: Any, inputs: Any) -> Any:
    raise RuntimeError("no kernels for this network")


def run_anyhow(graph: Any, inputs: Any) -> Any:
    return make_boxed_func(graph.forward)


def fail_when_called(graph: Any, inputs: Any) -> Any:
    def kernel(*values: Any) -> Any:
        raise ValueError("a kernel without code")

    return kernel


BACKENDS: dict[str, Any] = {
    "forward": fail,
    "backward": aot_autograd(fw_compiler=run_anyhow, bw_compiler=fail),
    "first call": fail_when_called,
}


def compile_with(backend: str) -> Callable[[nn.Module], nn.Module]:
    return partial(torch.compile, backend=BACKENDS[backend])  # type: ignore[return-value]


def compile_in_place(model: nn.Module) -> nn.Module:
    """As a detector compiles its layers: the network stays what it is."""
    assert isinstance(model, nn.Sequential)
    model[0].forward = torch.compile(model[0].forward, backend=fail)  # type: ignore[method-assign]
    return model


@pytest.fixture(autouse=True)
def every_machine_compiles(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(loop, "why_not_compiled", lambda device: None)
    yield
    torch.compiler.reset()


def trained(
    model: nn.Module, compile_network: Callable[[nn.Module], nn.Module] | None, world: World, run: Any = None
) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)
    train(
        TrainState(model, optimizer),
        (torch.randn(6, 5, generator=source) for _ in range(6)),
        loss,
        lambda step: 0.1,
        options=TrainOptions(steps=3, batch_size=12 * world.size, accumulate=2, compile=compile_network is not None),
        world=world,
        run=run,
        start_step=0,
        seed=0,
        precision="fp32",
        **({"compile_network": compile_network} if compile_network else {}),
    )
    return model.state_dict()


@pytest.mark.parametrize(
    "compile_network", [*map(compile_with, BACKENDS), compile_in_place], ids=[*BACKENDS, "in place"]
)
def test_the_run_is_that_of_a_network_that_was_never_compiled(
    compile_network: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = trained(network(), None, World(0, 1, CPU))
    with open_run(str(tmp_path / "run"), TrainOptions(), resume=False, overwrite=False, allow_mismatch=False) as run:
        found = trained(network(), compile_network, World(0, 1, CPU), run)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("train.compile")]
    said, _, reason = line.partition("goes on without it: ")
    assert said == "train.compile: "
    assert "kernel" in reason
    assert json.loads((tmp_path / "run" / "run.json").read_text())["left_out"] == {"compile": reason}


@pytest.mark.parametrize("backend", BACKENDS)
def test_so_it_is_in_many_processes(backend: str) -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        expected = trained(network(), None, World(0, 2, CPU))
        found = trained(network(), compile_with(backend), World(0, 2, CPU))
    finally:
        dist.destroy_process_group()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_a_network_that_is_compiled_stays_so(tmp_path: Path) -> None:
    runs = 0

    def count(graph: Any, inputs: Any) -> Any:
        def run_graph(*values: Any) -> Any:
            nonlocal runs
            runs += 1
            return graph(*values)

        return run_graph

    with open_run(str(tmp_path / "run"), TrainOptions(), resume=False, overwrite=False, allow_mismatch=False) as run:
        found = trained(network(), partial(torch.compile, backend=count), World(0, 1, CPU), run)  # type: ignore[arg-type]
    assert runs == 1 + 3 * 2  # the trial, and all portions of all steps
    assert json.loads((tmp_path / "run" / "run.json").read_text())["left_out"] == {}
    for name, tensor in trained(network(), None, World(0, 1, CPU)).items():  # the trial left no trace
        torch.testing.assert_close(found[name], tensor)


@pytest.mark.parametrize("error", [UserError("a damaged picture"), torch.OutOfMemoryError("too large")])
def test_what_a_network_that_is_not_compiled_would_meet_too_ends_the_run(error: Exception) -> None:
    def spoil(model: nn.Module) -> nn.Module:
        model.register_forward_pre_hook(lambda *given: (_ for _ in ()).throw(error))
        return model

    with pytest.raises(type(error), match=str(error)):
        trained(network(), spoil, World(0, 1, CPU))
