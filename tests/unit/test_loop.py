"""The training loop on small networks: steps, portions, the log, divergence, and exact resume."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backbones.engine import records
from backbones.engine.checkpoint import load_checkpoint
from backbones.engine.distributed import World
from backbones.engine.loop import TrainOptions, portion_size, repeated_tests, train
from backbones.engine.randomness import derive_seed
from backbones.engine.run import open_run
from backbones.engine.state import TrainState, restore
from backbones.engine.window import DivergedError
from backbones.errors import ConfigError, DataError, Stopped

ALONE = World(0, 1, torch.device("cpu"))


def batches(size: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless inputs and targets, a function of their place."""
    place = start
    while True:
        generator = torch.Generator().manual_seed(place)
        yield torch.randn(size, 4, generator=generator), torch.randn(size, 1, generator=generator)
        place += 1


def squared_error(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    loss = (model(batch[0]) - batch[1]).square().mean()
    return loss, {"error": loss.sqrt()}


def network(dropout: float = 0.0) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 1))
    return model, torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)


@dataclass
class Plan:
    """A run of the loop, recorded in a folder if there is one."""

    folder: Path | None = None
    options: TrainOptions = field(
        default_factory=lambda: TrainOptions(steps=6, batch_size=2, checkpoint_every=2, log_every=1)
    )
    compute_loss: Callable[..., Any] = squared_error
    dropout: float = 0.0
    learning_rate: Callable[[int], float] = lambda step: 0.01
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None
    batches: Iterator[Any] | None = None
    seed: int = 0

    def run(self, *, resume: bool = False) -> nn.Module:
        model, optimizer = network(self.dropout)
        state = TrainState(model, optimizer)
        options, evaluate = self.options, self.evaluate
        flags = {"resume": resume, "overwrite": False, "allow_mismatch": False}
        with open_run(str(self.folder), options, **flags) if self.folder else nullcontext() as run:
            start = 0
            if run is not None and resume:
                start = restore(run.checkpoints, state, options.steps, ALONE)
                run.update()
                run.forget_after(start, repeated_tests(start, options))
            train(
                state,
                self.batches or batches(options.batch_size // options.accumulate, start * options.accumulate),
                self.compute_loss,
                self.learning_rate,
                options=options,
                world=ALONE,
                run=run,
                start_step=start,
                seed=self.seed,
                precision="fp32",
                evaluate=(lambda: evaluate(model)) if evaluate else None,
            )
        return model

    def log(self) -> list[dict[str, Any]]:
        assert self.folder is not None
        lines = map(json.loads, (self.folder / "metrics.jsonl").read_text().splitlines())
        return [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]

    def checkpoints(self) -> list[str]:
        assert self.folder is not None
        return sorted(path.name for path in (self.folder / "checkpoints").glob("*"))


def bits(model: nn.Module) -> list[bytes]:
    return [parameter.detach().numpy().tobytes() for parameter in model.parameters()]


def test_the_loop_is_plain_sgd_with_the_rate_of_each_step() -> None:
    rates = [0.01, 0.02, 0.005, 0.04, 0.01, 0.03]
    trained = Plan(learning_rate=lambda step: rates[step]).run()
    model, _ = network()
    velocity = [torch.zeros_like(p) for p in model.parameters()]
    for rate, batch in zip(rates, batches(2), strict=False):
        model.zero_grad()
        squared_error(model, batch)[0].backward()
        for v, p in zip(velocity, model.parameters(), strict=True):
            assert p.grad is not None
            v.mul_(0.9).add_(p.grad)
            p.data -= rate * v
    for ours, plain in zip(trained.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, plain)


def test_portions_add_up_to_the_whole_batch() -> None:
    whole = Plan(options=TrainOptions(steps=6, batch_size=4)).run()
    portions = (part for x, y in batches(4) for part in zip(x.split(2), y.split(2), strict=True))
    split = Plan(options=TrainOptions(steps=6, batch_size=4, accumulate=2), batches=portions).run()
    for one, two in zip(whole.parameters(), split.parameters(), strict=True):
        torch.testing.assert_close(one, two)


def test_gradients_are_cut_to_the_norm_asked_for() -> None:
    before, _ = network()
    clipped = Plan(
        options=TrainOptions(steps=1, batch_size=2, clip_grad_norm=1e-3), learning_rate=lambda step: 1.0
    ).run()
    moved = [a.detach() - b.detach() for a, b in zip(clipped.parameters(), before.parameters(), strict=True)]
    assert torch.cat([m.flatten() for m in moved]).norm().item() == pytest.approx(1e-3, rel=1e-2)


def test_a_line_of_the_log_is_the_mean_over_its_steps(tmp_path: Path) -> None:
    fine = Plan(tmp_path / "fine", TrainOptions(steps=7, batch_size=2, log_every=1, checkpoint_every=5))
    coarse = Plan(tmp_path / "coarse", TrainOptions(steps=7, batch_size=2, log_every=3, checkpoint_every=5))
    fine.run()
    coarse.run()
    losses = {line["step"]: line["loss"] for line in fine.log()}
    assert list(losses) == [1, 2, 3, 4, 5, 6, 7]
    spans = {3: [1, 2, 3], 5: [4, 5], 6: [6], 7: [7]}  # a checkpoint ends a line: a resumed run goes on with a new one
    for line, (step, covered) in zip(coarse.log(), spans.items(), strict=True):
        assert line["step"] == step
        assert line["loss"] == pytest.approx(sum(losses[s] for s in covered) / len(covered))
        assert (line["split"], line["lr"]) == ("train", 0.01)
        assert line["error"] > 0


def test_tests_on_the_way_see_a_network_in_eval_mode(tmp_path: Path) -> None:
    modes = []

    def evaluate(model: nn.Module) -> dict[str, float]:
        modes.append(model.training)
        return {"top1_error": 5.0}

    plan = Plan(tmp_path / "run", TrainOptions(steps=6, batch_size=2, evaluate_every=2, log_every=6), evaluate=evaluate)
    model = plan.run()
    assert modes == [False, False]  # the last test is the caller's
    assert [line["step"] for line in plan.log() if line["split"] == "test"] == [2, 4]
    assert not model.training
    assert bits(model) == bits(Plan(options=plan.options).run())  # looking changes nothing


@pytest.fixture(autouse=True)
def heeded() -> Iterator[None]:
    """Signals are, even where the tests run under nohup."""
    earlier = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in earlier.items():
        signal.signal(number, handler)


class Killed(BaseException):
    """Stands for the end of the process."""


def until(batches: Iterator[Any], place: int) -> Iterator[Any]:
    for n, batch in enumerate(batches):
        if n == place:
            raise Killed
        yield batch


@pytest.mark.parametrize("place", [1, 2, 3, 5])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, place: int, dropout: float) -> None:
    options = TrainOptions(steps=6, batch_size=2, checkpoint_every=2, log_every=1, evaluate_every=2)
    whole, cut = (Plan(tmp_path / n, options, dropout=dropout, evaluate=lambda m: {"e": 1.0}) for n in ("a", "b"))
    expected = whole.run()
    cut.batches = until(batches(2), place)
    with pytest.raises(Killed):
        cut.run()
    cut.batches = None
    assert bits(cut.run(resume=True)) == bits(expected)
    assert cut.log() == whole.log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("place", [1, 3, 4, 5])
def test_a_signal_finishes_the_step_and_saves(tmp_path: Path, place: int, number: int) -> None:
    options = TrainOptions(steps=6, batch_size=2, checkpoint_every=4, log_every=3, evaluate_every=2)
    whole, cut = (Plan(tmp_path / n, options, evaluate=lambda m: {"e": 1.0}) for n in ("a", "b"))
    expected = whole.run()
    calls = iter(range(1, 100))

    def interrupted(model: nn.Module, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        if next(calls) == place:
            os.kill(os.getpid(), number)  # in the middle of a step
        return squared_error(model, batch)

    cut.compute_loss = interrupted
    with pytest.raises(Stopped) as stopped:
        cut.run()
    name = signal.Signals(number).name
    assert str(stopped.value) == f"interrupted by {name} after step {place}: go on with --resume"
    assert cut.checkpoints()[-1] == f"step_{place:08d}.pt"
    record = json.loads((tmp_path / "b" / "run.json").read_text())
    assert (record["status"], record["error"]) == ("interrupted", str(stopped.value))
    cut.compute_loss = squared_error
    assert bits(cut.run(resume=True)) == bits(expected)
    assert cut.log() == whole.log()  # lines of averages too that the stop was in the middle of


def test_a_signal_in_the_last_step_is_heeded_after_it(tmp_path: Path) -> None:
    plan = Plan(tmp_path / "run")
    plan.learning_rate = lambda step: os.kill(os.getpid(), signal.SIGTERM) or 0.01 if step == 5 else 0.01
    with pytest.raises(Stopped, match="after step 6"):
        plan.run()
    assert plan.checkpoints()[-1] == "step_00000006.pt"


def test_a_test_is_left_at_once_and_done_again(tmp_path: Path) -> None:
    options = TrainOptions(steps=6, batch_size=2, checkpoint_every=6, log_every=2, evaluate_every=4)
    whole, cut = (Plan(tmp_path / n, options, evaluate=lambda m: {"e": 1.0}) for n in ("a", "b"))
    expected = whole.run()

    def endless(model: nn.Module) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("goes on after a signal")

    cut.evaluate = endless
    with pytest.raises(Stopped, match="interrupted by SIGTERM after step 4: go on with --resume"):
        cut.run()
    assert cut.checkpoints() == ["step_00000004.pt"]  # of the step whose test it was
    cut.evaluate = whole.evaluate
    assert bits(cut.run(resume=True)) == bits(expected)
    assert cut.log() == whole.log()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_batch_that_cannot_be_had_loses_no_step(tmp_path: Path, accumulate: int) -> None:
    """The second portion too: a step begins once all of it is there."""
    options = TrainOptions(steps=6, batch_size=2 * accumulate, accumulate=accumulate, checkpoint_every=6, log_every=4)
    whole, cut = Plan(tmp_path / "a", options), Plan(tmp_path / "b", options)
    expected = whole.run()

    def vanishing() -> Iterator[Any]:
        for place, batch in enumerate(batches(2)):
            if place == 4 * accumulate - 1:
                raise DataError("7.jpg: no such file")
            yield batch

    cut.batches = vanishing()
    with pytest.raises(DataError, match=r"7\.jpg"):
        cut.run()
    assert cut.checkpoints() == ["step_00000003.pt"]
    assert json.loads((tmp_path / "b" / "run.json").read_text())["error"] == "DataError: 7.jpg: no such file"
    cut.batches = None
    assert bits(cut.run(resume=True)) == bits(expected)
    assert cut.log() == whole.log()


def test_a_batch_that_fails_in_another_way_loses_no_step_either(tmp_path: Path) -> None:
    def failing() -> Iterator[Any]:
        for place, batch in enumerate(batches(2)):
            if place == 3:
                raise OSError(5, "Input/output error", "7.jpg")
            yield batch

    plan = Plan(tmp_path, TrainOptions(steps=6, batch_size=2, checkpoint_every=6), batches=failing())
    with pytest.raises(OSError, match=r"7\.jpg"):
        plan.run()
    assert plan.checkpoints() == ["step_00000003.pt"]


def test_numbers_of_another_kind_do_not_mix(tmp_path: Path) -> None:
    """A checkpoint in the middle of a line, of a run that logged something else."""
    options = TrainOptions(steps=6, batch_size=2, checkpoint_every=6, log_every=4)
    plan = Plan(tmp_path, options)
    plan.compute_loss = lambda model, batch: (squared_error(model, batch)[0], {})
    plan.batches = until(batches(2), 3)
    plan.learning_rate = lambda step: os.kill(os.getpid(), signal.SIGTERM) or 0.01 if step == 2 else 0.01
    with pytest.raises(Stopped):
        plan.run()
    plan.batches, plan.compute_loss, plan.learning_rate = None, squared_error, lambda step: 0.01
    plan.run(resume=True)
    assert [line["step"] for line in plan.log()] == [4, 6]


def test_a_signal_after_the_last_step_is_heeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(tmp_path)
    save = records.Records.save

    def save_and_signal(self: Any, done: int) -> None:
        save(self, done)
        if done == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(records.Records, "save", save_and_signal)
    with pytest.raises(Stopped, match="after step 6"):
        plan.run()


def test_a_checkpoint_of_before_the_log_was_kept_is_read(tmp_path: Path) -> None:
    plan = Plan(tmp_path)
    expected = plan.run()
    path = tmp_path / "checkpoints" / "step_00000006.pt"
    saved = load_checkpoint(path)
    assert saved.pop("window") == {"names": ["loss", "error"], "rows": []}
    torch.save(saved, path)
    assert bits(plan.run(resume=True)) == bits(expected)


def test_the_optimizers_settings_are_those_of_the_run_that_goes_on(tmp_path: Path) -> None:
    """Not those of a checkpoint: its run may have had another weight decay, or an update that a capture can't use."""
    Plan(tmp_path).run()
    model, _ = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9, weight_decay=0.5, fused=True)
    assert restore(tmp_path / "checkpoints", TrainState(model, optimizer), 6, ALONE) == 6
    (group,) = optimizer.param_groups
    assert (group["fused"], group["weight_decay"]) == (True, 0.5)
    assert all(state["momentum_buffer"].abs().sum() > 0 for state in optimizer.state.values())


def test_a_kill_between_test_and_checkpoint_loses_no_line(tmp_path: Path) -> None:
    options = TrainOptions(steps=6, batch_size=2, checkpoint_every=2, log_every=1, evaluate_every=2)
    whole = Plan(tmp_path / "a", options, evaluate=lambda model: {"e": 1.0})
    whole.run()
    calls = iter([False, True])

    def evaluate(model: nn.Module) -> dict[str, float]:
        if next(calls):
            raise Killed
        return {"e": 1.0}

    cut = Plan(tmp_path / "b", options, evaluate=evaluate)
    with pytest.raises(Killed):
        cut.run()
    cut.evaluate = whole.evaluate
    cut.run(resume=True)
    assert cut.log() == whole.log()


def test_the_seed_decides_dropout() -> None:
    assert bits(Plan(dropout=0.5, seed=3).run()) == bits(Plan(dropout=0.5, seed=3).run())
    assert bits(Plan(dropout=0.5, seed=3).run()) != bits(Plan(dropout=0.5, seed=4).run())
    drawn = []

    def draw(model: nn.Module, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        drawn.append(torch.rand(1).item())
        return squared_error(model, batch)

    Plan(compute_loss=draw, seed=7).run()
    expected = [torch.rand(1, generator=torch.Generator().manual_seed(derive_seed(7, s, 0))).item() for s in range(6)]
    assert drawn == expected


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_before_the_next_checkpoint(tmp_path: Path, bad: float) -> None:
    steps = iter(range(1, 100))

    def explode(model: nn.Module, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, numbers = squared_error(model, batch)
        return (loss * bad if next(steps) == 11 else loss), numbers

    options = TrainOptions(steps=20, batch_size=2, checkpoint_every=8, log_every=4)
    plan = Plan(tmp_path / "run", options, compute_loss=explode)
    with pytest.raises(DivergedError, match=r"not a finite number at step 11: .*optimizer\.lr") as error:
        plan.run()
    assert "\n" not in str(error.value)
    assert plan.checkpoints() == ["step_00000008.pt"]
    assert [line["step"] for line in plan.log()] == [4, 8]
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "failed"
    assert "step 11" in record["error"]


def test_the_step_is_named_with_portions_too() -> None:
    portions = iter(range(1, 100))

    def explode(model: nn.Module, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, numbers = squared_error(model, batch)
        return (loss * float("nan") if next(portions) == 9 else loss), numbers

    with pytest.raises(DivergedError, match="at step 5:"):
        Plan(options=TrainOptions(steps=8, batch_size=4, accumulate=2, log_every=8), compute_loss=explode).run()


def test_weights_that_overflow_under_a_finite_loss_are_not_kept(tmp_path: Path) -> None:
    plan = Plan(tmp_path / "run", learning_rate=lambda step: 3e38 if step == 3 else 1e-5)
    plan.compute_loss = lambda model, batch: (squared_error(model, batch)[0] * 100, {})
    with pytest.raises(DivergedError, match="not finite numbers after step 4"):
        plan.run()
    assert plan.checkpoints() == ["step_00000002.pt"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"steps": 0}, "train.steps 0"),
        ({"batch_size": -4}, "train.batch_size -4"),
        ({"accumulate": 0}, "train.accumulate 0"),
        ({"checkpoint_every": 0}, "train.checkpoint_every 0"),
        ({"keep_checkpoints": 0}, "train.keep_checkpoints 0"),
        ({"log_every": 0}, "train.log_every 0"),
        ({"workers": -1}, "train.workers -1"),
        ({"evaluate_every": -1}, "train.evaluate_every -1"),
        ({"clip_grad_norm": float("nan")}, "train.clip_grad_norm nan"),
        ({"batch_size": 10, "accumulate": 3}, "train.batch_size 10 can't be split evenly over 2 process"),
    ],
)
def test_options_without_sense_are_refused(changes: dict[str, Any], named: str) -> None:
    assert portion_size(TrainOptions(batch_size=24, accumulate=3), 2) == 4
    with pytest.raises(ConfigError, match=named):
        portion_size(TrainOptions(**changes), 2)
