"""The training loop."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones.engine.acceleration import Precision
from backbones.engine.average import WeightAverage
from backbones.engine.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from backbones.engine.distributed import World, mean_over_processes, share_buffers, wait_for_all
from backbones.engine.first_pass import eagerly, try_compiled, wrap_for_processes
from backbones.engine.plateau import Plateau
from backbones.engine.prefetch import prefetch
from backbones.engine.randomness import derive_seed, seed_generators
from backbones.engine.run import RunFolder
from backbones.engine.step import (
    CapturedStep,
    ComputeLoss,
    Step,
    TakeStep,
    set_rate,
    why_not_captured,
    why_not_compiled,
)
from backbones.engine.warmup import ErrorWarmup
from backbones.errors import CheckpointError, ConfigError, UserError
from backbones.progress import progress_bar

CompileNetwork = Callable[[nn.Module], nn.Module]


def compile_whole(model: nn.Module) -> nn.Module:
    """The network with its forward pass compiled; the model itself stays as it is."""
    return torch.compile(model)  # type: ignore[return-value]


class DivergedError(UserError):
    """The loss is no longer a number."""


@dataclass
class TrainOptions:
    """How long and in which portions a network is trained.

    Args:
        steps: optimizer steps.
        batch_size: pictures of one optimizer step, over all processes and accumulated portions.
        accumulate: portions that each process works through one after the other for one step.
        checkpoint_every: steps between checkpoints; one is always written at the end.
        keep_checkpoints: how many checkpoints stay.
        evaluate_every: steps between evaluations on the test split; 0 evaluates at the end only.
        log_every: steps between lines of metrics.jsonl, each an average over those steps.
        workers: data-loading processes of each training process; 0 loads in the training process.
        clip_grad_norm: the gradient's norm is cut to this; 0 leaves it alone.
        ema_decay: test and keep an exponential moving average of the weights with this decay; 0 for none.
        capture: a step is one CUDA graph, where that is possible: small networks train several times as fast.
            `left_out` in run.json tells why this, or `compile`, was not possible.
        compile: compile the network (torch.compile), where that is possible; it takes up to a minute at the start.
        log_gradient_norm: log the norm of the whole gradient (before it is cut).
    """

    steps: int = 1000
    batch_size: int = 128
    accumulate: int = 1
    checkpoint_every: int = 1000
    keep_checkpoints: int = 2
    evaluate_every: int = 0
    log_every: int = 20
    workers: int = 4
    clip_grad_norm: float = 0.0
    ema_decay: float = 0.0
    capture: bool = False
    compile: bool = False
    log_gradient_norm: bool = False


def portion_size(options: TrainOptions, world_size: int) -> int:
    """Pictures that one process sees at a time.

    Raises:
        ConfigError: the batch can't be split evenly, or a count is not positive.
    """
    for name in ("steps", "batch_size", "accumulate", "checkpoint_every", "keep_checkpoints", "log_every"):
        if getattr(options, name) < 1:
            raise ConfigError(f"train.{name} {getattr(options, name)}: give 1 or more")
    for name in ("evaluate_every", "workers", "clip_grad_norm"):
        if not 0 <= getattr(options, name) < math.inf:
            raise ConfigError(f"train.{name} {getattr(options, name)}: give 0 or more")
    if not 0 <= options.ema_decay < 1:
        raise ConfigError(f"train.ema_decay {options.ema_decay}: give 0, or a number below 1 such as 0.9999")
    size, rest = divmod(options.batch_size, options.accumulate * world_size)
    if rest:
        raise ConfigError(
            f"train.batch_size {options.batch_size} can't be split evenly over {world_size} process(es) "
            f"x train.accumulate {options.accumulate}"
        )
    return size


@dataclass
class TrainState:
    """All that changes in training, and so all that a checkpoint holds.

    Args:
        model: as it is in one process.
        optimizer: of its trainable parameters.
        plateau: lowers the learning rate, where the schedule wants it.
        average: of the weights, where it is wanted.
        warmup: keeps the learning rate low at first, where the schedule wants it.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    plateau: Plateau | None = None
    average: WeightAverage | None = None
    warmup: ErrorWarmup | None = None

    def rate_factor(self) -> float:
        """What plateau and warm-up multiply the learning rate by at present."""
        return (self.plateau.factor if self.plateau else 1.0) * (self.warmup.factor if self.warmup else 1.0)

    def parts(self) -> dict[str, Any]:
        """What has a `state_dict`, by its name in a checkpoint."""
        return {name: part for name, part in vars(self).items() if part is not None}


def restore(checkpoints: Path, state: TrainState, steps: int) -> int:
    """Loads the latest of a run's checkpoints into `state`; returns the step to go on from (0: none there).

    Raises:
        CheckpointError: it is damaged, of another network, or of a longer run than `steps`.
    """
    path = latest_checkpoint(checkpoints)
    if path is None:
        return 0
    saved = load_checkpoint(path)
    for name in state.parts():
        if name not in saved:
            raise CheckpointError(f"{path}: holds no {name}, its run went without: go on without it, or start anew")
    groups = state.optimizer.param_groups
    settings = [{key: value for key, value in group.items() if key != "params"} for group in groups]
    try:
        for name, part in state.parts().items():
            part.load_state_dict(saved[name])
        for group, own in zip(state.optimizer.param_groups, settings, strict=True):
            group.update(own)  # a checkpoint's weight decay, or unfused update, is that of its run
        for parameter, values in state.optimizer.state.items():
            for name, buffer in values.items():
                if isinstance(buffer, Tensor) and buffer.shape == parameter.shape:
                    # A fused update takes numbers as they lie in memory, and an old run's may lie otherwise.
                    values[name] = torch.empty_like(parameter, dtype=buffer.dtype).copy_(buffer)
        step = int(saved["step"])
        if any(
            buffer.shape != parameter.shape
            for parameter, values in state.optimizer.state.items()
            for buffer in values.values()
            if isinstance(buffer, Tensor) and buffer.ndim
        ):
            raise ValueError("a momentum has another shape than its parameter")
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        raise CheckpointError(f"{path}: does not fit this run ({' '.join(str(error).split())[:200]})") from error
    if not 0 <= step <= steps:
        raise CheckpointError(f"{path}: is of step {step}, the run of train.steps {steps}: raise that, or start anew")
    return step


def train(
    state: TrainState,
    batches: Iterable[Any],
    compute_loss: ComputeLoss,
    learning_rate: Callable[[int], float],
    *,
    options: TrainOptions,
    world: World,
    run: RunFolder | None,
    start_step: int,
    seed: int,
    precision: Precision,
    watch: str = "loss",
    describe_batch: Callable[[int], str] = lambda step: "",
    evaluate: Callable[[], dict[str, float]] | None = None,
    compile_network: CompileNetwork = compile_whole,
) -> None:
    """Trains `state.model` in place from `start_step` to `options.steps`; its average takes its place in the end.

    Args:
        batches: this process's micro-batches, `options.accumulate` of them a step, starting with those of `start_step`.
        compute_loss: the mean loss over a micro-batch, and what to log.
        learning_rate: the rate of a step; a plateau and a warm-up lower it.
        run: where the main process records; None in the others.
        watch: which of the logged numbers plateau and warm-up watch.
        describe_batch: what to say of the batch of a step at which the loss is no number.
        compile_network: what the option `compile` does.
        evaluate: called with the model in eval mode in every process; its numbers are logged.

    Raises:
        DivergedError: the loss became infinite or NaN. No checkpoint is written from then on.
    """
    model, average = state.model, state.average
    model.train()
    steps = range(start_step, options.steps)
    iterator = prefetch(batches, world.device)
    if steps:
        take_step, iterator = _prepare_step(
            state, compute_loss, iterator, options, world, precision, compile_network, run
        )
    window = _Window(options.batch_size)
    with progress_bar(steps, total=options.steps, initial=start_step, unit="step", shown=world.is_main) as bar:
        for step in bar:
            # Dropout draws from this: a function of the step, so that a resumed run draws the same.
            seed_generators(derive_seed(seed, step, world.rank), world.device)
            rate = learning_rate(step) * state.rate_factor()
            set_rate(state.optimizer, rate)
            values = take_step(iterator)
            window.add(values)
            if average is not None:
                average.update(model)
            for watcher in (state.plateau, state.warmup):
                news = watcher.observe(values[watch]) if watcher else None
                if news and world.is_main:
                    bar.write(f"step {step + 1}: {news}")

            done = step + 1
            save = _is_due(done, options.checkpoint_every) or done == options.steps
            test = evaluate is not None and _is_due(done, options.evaluate_every) and done < options.steps
            if save or test or _is_due(done, options.log_every):
                means = window.close(done, describe_batch) | {"lr": rate}
                if run is not None:
                    run.log(done, "train", means)
                    bar.set_postfix(loss=f"{means['loss']:.3f}", lr=f"{rate:g}", refresh=False)
            if test and evaluate is not None:
                results = _evaluate(state, evaluate)
                if run is not None:
                    run.log(done, "test", results)
            if save:  # after the rest of the step: a resumed run does nothing of it again
                _check_weights(model, done)
                if run is not None:
                    saved = {"step": done} | {name: part.state_dict() for name, part in state.parts().items()}
                    save_checkpoint(run.checkpoints, done, saved, options.keep_checkpoints)
                wait_for_all()
            if save or test:
                window.start_clock()
    if average is not None:
        average.exchange(model)
    share_buffers(model)
    model.eval()


def _prepare_step(
    state: TrainState,
    compute_loss: ComputeLoss,
    batches: Iterator[Any],
    options: TrainOptions,
    world: World,
    precision: Precision,
    compile_network: CompileNetwork,
    run: RunFolder | None,
) -> tuple[TakeStep, Iterator[Any]]:
    """The step that the options ask for, as far as it is possible here; what is not is said and recorded.

    Returns:
        The step, and the batches, of which the first may have been looked at.
    """
    left_out: dict[str, str] = {}
    if run is not None and (options.compile or options.capture):
        run.update(left_out=left_out)

    def leave_out(name: str, reason: str) -> None:
        left_out[name] = reason
        if world.is_main or world.size == 1:
            print(f"train.{name}: goes on without it: {reason}", flush=True)
        if run is not None:
            run.update(left_out=left_out)

    model = state.model
    not_compiled = why_not_compiled(world.device) if options.compile else None
    not_captured = why_not_captured(world.device, world.size) if options.capture else None
    compiled = options.compile and not not_compiled
    if compiled:
        model = compile_network(model)
    if world.size > 1:
        model, batches = wrap_for_processes(state.model, model, compute_loss, batches, precision, world)
    if compiled:
        not_compiled, batches = try_compiled(state.model, model, compute_loss, batches, precision, world)
    for name, reason in (("compile", not_compiled), ("capture", not_captured)):
        if reason:
            leave_out(name, reason)
    step = Step(
        model,
        state.optimizer,
        compute_loss,
        accumulate=options.accumulate,
        precision=precision,
        device=world.device,
        clip_grad_norm=options.clip_grad_norm,
        log_gradient_norm=options.log_gradient_norm,
    )
    take_step: TakeStep = step
    if options.capture and not not_captured:
        take_step = CapturedStep(step, state.model, partial(leave_out, "capture"))
    return _eager(take_step) if compiled and not_compiled else take_step, batches


def _eager(take_step: TakeStep) -> TakeStep:
    def take_eagerly(batches: Iterator[Any]) -> dict[str, Tensor]:
        with eagerly():
            return take_step(batches)

    return take_eagerly


def _evaluate(state: TrainState, evaluate: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Tests the weights that the run would keep: their average, where there is one."""
    if state.average is not None:
        state.average.exchange(state.model)
    share_buffers(state.model)
    state.model.eval()
    results = evaluate()
    state.model.train()
    if state.average is not None:
        state.average.exchange(state.model)
    return results


def _is_due(done: int, every: int) -> bool:
    return every > 0 and done % every == 0


def _check_weights(model: nn.Module, step: int) -> None:
    """The loss is finite, but the update that follows it can still overflow."""
    if not torch.stack([p.detach().isfinite().all() for p in model.parameters()]).all():
        raise _diverged(f"the weights are not finite numbers after step {step}")


def _diverged(what: str) -> DivergedError:
    return DivergedError(
        f"{what}: checkpoints from before are kept; try a lower --optimizer.lr, a longer --schedule.warmup_steps or "
        "--train.clip_grad_norm 10, anew or with --resume --allow_mismatch (where that fails at once, without the "
        "newest checkpoint)"
    )


class _Window:
    """Averages of what happened since the last line of the log, kept on the device until then (no synchronisation)."""

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._open()

    def _open(self) -> None:
        self._steps: list[dict[str, Tensor]] = []
        self.start_clock()

    def start_clock(self) -> None:
        """Leaves the time until now (an evaluation, a checkpoint) out of the throughput."""
        self._started = time.monotonic()

    def add(self, values: dict[str, Tensor]) -> None:
        """Takes the numbers of one step."""
        self._steps.append(values)

    def close(self, step: int, describe_batch: Callable[[int], str]) -> dict[str, float]:
        """The averages over all steps and processes; starts anew.

        Args:
            step: how many steps are done.

        Raises:
            DivergedError: a number was not finite in any process.
        """
        names = list(self._steps[0])
        table = torch.stack([torch.stack([values[name] for name in names]) for values in self._steps])
        rows = mean_over_processes(table).tolist()
        for place, row in enumerate(rows):
            if not all(map(math.isfinite, row)):
                bad = step - len(rows) + place
                raise _diverged(f"the loss is not a finite number at step {bad + 1}{describe_batch(bad)}")
        seconds = time.monotonic() - self._started
        averages = {name: sum(column) / len(rows) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
        averages["images_per_second"] = round(len(rows) * self._batch_size / max(seconds, 1e-9), 2)
        self._open()
        return averages
