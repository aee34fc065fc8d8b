"""What makes training fast changes no loss: 50 steps each way, to the bit where the arithmetic is the same."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from backbones.engine.acceleration import Precision
from backbones.engine.checkpoint import save_checkpoint
from backbones.engine.distributed import World, data_parallel
from backbones.engine.first_pass import wrap_for_processes
from backbones.engine.loop import TrainOptions, train
from backbones.engine.prefetch import prefetch
from backbones.engine.randomness import seed_generators
from backbones.engine.run import open_run
from backbones.engine.state import TrainState, restore
from backbones.engine.step import Step, why_not_compiled
from backbones.engine.window import Window
from backbones.models import get_model
from backbones.train import classification_loss

CPU = torch.device("cpu")
STEPS = 50
loss = classification_loss(lambda batch: batch)


def batches(size: int = 8, dtype: torch.dtype = torch.float32) -> Iterator[tuple[Tensor, Tensor]]:
    """Pictures whose colour tells their class."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS * 8 // size):
        labels = torch.randint(4, (size,), generator=generator)
        noise = torch.randn(size, 3, 8, 8, generator=generator, dtype=dtype)
        yield noise + labels[:, None, None, None], labels


def network(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return get_model("cifar_resnet8", 4).to(dtype).to(memory_format=torch.channels_last)


def losses(
    model: nn.Module,
    source: Iterator[Any],
    *,
    through: nn.Module | None = None,
    fused: bool | None = True,
    accumulate: int = 1,
    precision: Precision = "fp32",
) -> list[float]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4, fused=fused)
    step = Step(through or model, optimizer, loss, accumulate=accumulate, precision=precision, device=CPU)
    found = [float(step(source)["loss"]) for _ in range(STEPS)]
    assert found[-1] < found[0]
    return found


def test_the_loops_losses_are_those_of_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit, but for the update's rounding: the reference takes it fused too."""
    model, reference = network(), network()
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4, fused=True)
    expected = []
    for images, labels in batches():
        optimizer.zero_grad()
        value = nn.functional.cross_entropy(reference(images), labels)
        value.backward()
        optimizer.step()
        expected.append(value.item())
    found: list[float] = []
    add = Window.add

    def keep(self: Any, values: dict[str, Tensor]) -> None:
        found.append(float(values["loss"]))
        add(self, values)

    monkeypatch.setattr(Window, "add", keep)
    train(
        TrainState(model, torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9, weight_decay=1e-4, fused=True)),
        batches(),
        loss,
        lambda step: 0.02,
        options=TrainOptions(steps=STEPS, batch_size=8),
        world=World(0, 1, CPU),
        run=None,
        start_step=0,
        seed=0,
        precision="fp32",
    )
    assert found == expected


def test_batches_ahead_are_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nothing:
        def __init__(self, *given: Any):
            pass

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *given: None

        def __enter__(self) -> None:
            pass

        def __exit__(self, *error: Any) -> None:
            pass

    for name in ("Stream", "stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, Nothing)
    monkeypatch.setattr("backbones.engine.prefetch.move", lambda batch, device: batch)
    assert losses(network(), prefetch(batches(), torch.device("cuda"))) == losses(network(), batches())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-2)])
def test_a_fused_update_rounds_otherwise_and_no_more(dtype: torch.dtype, tolerance: float) -> None:
    plain = losses(network(dtype), batches(dtype=dtype), fused=None)
    assert losses(network(dtype), batches(dtype=dtype)) == pytest.approx(plain, rel=tolerance)


def test_portions_are_the_whole_batch() -> None:
    """Batch norm's statistics are each portion's own, so it is fixed here."""
    whole, portions = network(torch.float64).eval(), network(torch.float64).eval()
    parts = (part for x, y in batches(dtype=torch.float64) for part in zip(x.split(2), y.split(2), strict=True))
    assert losses(portions, parts, accumulate=4) == pytest.approx(losses(whole, batches(dtype=torch.float64)), rel=1e-9)


def test_bfloat16_learns_the_same() -> None:
    plain, mixed = losses(network(), batches()), losses(network(), batches(), precision="bf16")
    assert mixed[0] == pytest.approx(plain[0], rel=0.02)
    assert sum(mixed) == pytest.approx(sum(plain), rel=0.1)
    assert mixed != plain


def test_a_compiled_network_rounds_otherwise_and_no_more() -> None:
    if reason := why_not_compiled(CPU):
        pytest.skip(f"nothing can be compiled here: {reason}")

    def small() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
        )

    plain, model = losses(small(), batches()), small()
    assert losses(model, batches(), through=torch.compile(model)) == pytest.approx(plain, rel=1e-3)


@pytest.fixture
def one_process() -> Iterator[World]:
    """A world of one that says it is one of many: what is wrapped is wrapped as it is there."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield World(0, 2, CPU)
    dist.destroy_process_group()


def test_gradients_in_buckets_are_the_same_bits(one_process: World) -> None:
    model, plain = network(), losses(network(), batches())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wrapped, source = wrap_for_processes(model, model, loss, batches(), "fp32", one_process)
    for name, tensor in model.state_dict().items():  # the first pass left nothing behind
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.grad is None for parameter in model.parameters())
    assert losses(model, source, through=wrapped) == plain  # and lost no batch
    assert not wrapped.find_unused_parameters


def test_parameters_without_a_gradient_are_waited_for_only_if_there_are_any(one_process: World) -> None:
    class Partial(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = network(), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    model = Partial()
    wrapped, source = wrap_for_processes(model, model, loss, batches(), "fp32", one_process)
    assert wrapped.find_unused_parameters
    assert losses(model, source, through=wrapped) == losses(network(), batches())


def test_portions_are_exchanged_once_and_live_in_buckets(one_process: World) -> None:
    plain, model = losses(network(), batches(4), accumulate=2), network()
    wrapped = data_parallel(model, one_process, unused_parameters=False)
    assert losses(model, batches(4), through=wrapped, accumulate=2) == plain
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert len({gradient.untyped_storage().data_ptr() for gradient in gradients}) < len(gradients)


def test_a_momentum_that_lies_otherwise_in_memory_is_the_same_momentum(tmp_path: Any) -> None:
    """A fused update reads it as it lies: an old checkpoint's are laid out as the weights are."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, fused=True)
    for parameter in model.parameters():
        optimizer.state[parameter]["momentum_buffer"] = torch.randn(parameter.shape)  # not channels_last
    kept = [optimizer.state[p]["momentum_buffer"] for p in model.parameters()]
    with open_run(str(tmp_path / "run"), TrainOptions(), resume=False, overwrite=False, allow_mismatch=False) as run:
        saved = {"step": 1, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
        save_checkpoint(run.checkpoints, 1, saved, 1)
        assert restore(run.checkpoints, TrainState(model, optimizer), 2, World(0, 1, torch.device("cpu"))) == 1
    for parameter, before in zip(model.parameters(), kept, strict=True):
        buffer = optimizer.state[parameter]["momentum_buffer"]
        assert torch.equal(buffer, before)
        assert buffer.stride() == parameter.stride()


def test_seeding_one_device_draws_what_seeding_all_draws() -> None:
    seed_generators(2**40 + 7, CPU)
    ours = torch.rand(5)
    torch.manual_seed(2**40 + 7)
    assert torch.equal(ours, torch.rand(5))
