"""The training loop."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from backbones.engine.acceleration import Precision
from backbones.engine.distributed import World, gather_objects, highest_over_processes, share_buffers
from backbones.engine.first_pass import eagerly, try_compiled, wrap_for_processes
from backbones.engine.prefetch import prefetch
from backbones.engine.randomness import derive_seed, seed_generators
from backbones.engine.records import Records
from backbones.engine.run import RunFolder
from backbones.engine.state import TrainState
from backbones.engine.step import (
    CapturedStep,
    ComputeLoss,
    Step,
    TakeStep,
    describe,
    set_rate,
    why_not_captured,
    why_not_compiled,
)
from backbones.errors import ConfigError, Stopped, UserError
from backbones.progress import progress_bar
from backbones.stopping import StopRequests, put_off_stops

_FAILURE = 1000  # above the number of any signal

CompileNetwork = Callable[[nn.Module], nn.Module]


def compile_whole(model: nn.Module) -> nn.Module:
    """The network with its forward pass compiled; the model itself stays as it is."""
    return torch.compile(model)  # type: ignore[return-value]


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
    portions = options.accumulate * world_size
    size, rest = divmod(options.batch_size, portions)
    if rest:
        fitting = " or ".join(str(n * portions) for n in (size, size + 1) if n)
        raise ConfigError(
            f"train.batch_size {options.batch_size} can't be split evenly over {world_size} process(es) "
            f"x train.accumulate {options.accumulate}: give {fitting}; with --elastic, one that each number of "
            "processes splits evenly which the run may have"
        )
    return size


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
        Stopped: a signal came, in any process. The step was finished, its checkpoint written.
        Exception: a batch can't be had in some process. The checkpoint of the step before was written.
    """
    model = state.model
    model.train()
    steps = range(start_step, options.steps)
    records = Records(
        state,
        run,
        world,
        batch_size=options.batch_size,
        saved=start_step,
        keep=options.keep_checkpoints,
        describe_batch=describe_batch,
    )
    with (
        put_off_stops(says=world.is_main) as stops,
        progress_bar(steps, total=options.steps, initial=start_step, unit="step", shown=world.is_main) as bar,
    ):
        if evaluate is not None and _is_test_due(start_step, options):
            records.test(start_step, evaluate, stops)  # its run may have ended in it
        iterator = prefetch(batches, world.device)
        if steps:
            first, failure = _fetch(iterator, 1, stops)
            end = _common_end(stops, failure, start_step)
            if end is not None:
                raise end
            iterator = chain(first, iterator)
            take_step, iterator = _prepare_step(
                state, compute_loss, iterator, options, world, precision, compile_network, run
            )
        for step in bar:
            portions, failure = _fetch(iterator, options.accumulate, stops)
            end = _common_end(stops, failure, step)
            if end is not None:
                records.save(step)
                raise end
            # Dropout draws from this: a function of the step, so that a resumed run draws the same.
            seed_generators(derive_seed(seed, step, world.rank), world.device)
            rate = learning_rate(step) * state.rate_factor()
            set_rate(state.optimizer, rate)
            values = take_step(iter(portions))
            records.add(values, rate)
            if state.average is not None:
                state.average.update(model)
            for watcher in (state.plateau, state.warmup):
                news = watcher.observe(values[watch]) if watcher else None
                if news and world.is_main:
                    bar.write(f"step {step + 1}: {news}")

            done = step + 1
            test = evaluate is not None and _is_test_due(done, options)
            save = test or _is_due(done, options.checkpoint_every) or done == options.steps
            if save or _is_due(done, options.log_every):
                records.log(done)
                bar.set_postfix(loss=f"{records.last['loss']:.3f}", lr=f"{rate:g}", refresh=False)
            if save:
                records.save(done)
            if test and evaluate is not None:  # after the checkpoint, so that it can be left at any time
                end = _common_end(stops, None, done)
                if end is not None:
                    raise end
                records.test(done, evaluate, stops)
    if stops.number is not None:  # all is saved
        raise Stopped(stops.number, options.steps)
    if state.average is not None:
        state.average.exchange(model)
    share_buffers(model)
    model.eval()


def _fetch(batches: Iterator[Any], count: int, stops: StopRequests) -> tuple[list[Any], Exception | None]:
    """The micro-batches of a step, or why they can't be had: found out before the step changes anything."""
    if stops.number is not None:
        return [], None
    try:
        return [next(batches) for _ in range(count)], None
    except Exception as error:  # of whatever kind: what has been done before is whole
        return [], error


def _common_end(stops: StopRequests, failure: Exception | None, steps: int) -> Stopped | Exception | None:
    """Why all processes stop after `steps` steps, a failure or else a signal in any of them; None: they go on."""
    number = highest_over_processes(_FAILURE if failure else stops.number or 0)
    if number == _FAILURE:
        texts = gather_objects(failure and (str(failure) if isinstance(failure, UserError) else describe(failure)))
        return failure or UserError(next(filter(None, texts)))
    return Stopped(number, steps) if number else None


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


def repeated_tests(start_step: int, options: TrainOptions) -> set[int]:
    """The steps whose tests a run that goes on from `start_step` does again if it had done them: the last, which is
    the caller's, and that of its checkpoint, in which the run may have been interrupted."""
    return {options.steps} | ({start_step} if _is_test_due(start_step, options) else set())


def _is_test_due(done: int, options: TrainOptions) -> bool:
    return 0 < done < options.steps and _is_due(done, options.evaluate_every)


def _is_due(done: int, every: int) -> bool:
    return every > 0 and done % every == 0


def _eager(take_step: TakeStep) -> TakeStep:
    def take_eagerly(batches: Iterator[Any]) -> dict[str, Tensor]:
        with eagerly():
            return take_step(batches)

    return take_eagerly
