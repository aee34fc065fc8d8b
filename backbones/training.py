"""What training a classifier and training a detector have in common: from a built model to a finished run folder."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones.config import TrainingConfig, check_optimizer, compare_with_expected
from backbones.data.sampler import StepSampler
from backbones.engine.acceleration import set_determinism
from backbones.engine.average import WeightAverage
from backbones.engine.distributed import World, entered_by_main, explain_loss, on_main
from backbones.engine.loop import CompileNetwork, compile_whole, portion_size, repeated_tests, train
from backbones.engine.outputs import write_json
from backbones.engine.plateau import Plateau
from backbones.engine.run import DIVERGED_BATCH, RunFolder, check_output, open_run
from backbones.engine.schedule import check_schedule, learning_rate
from backbones.engine.state import TrainState, restore
from backbones.engine.step import ComputeLoss
from backbones.engine.warmup import ErrorWarmup
from backbones.errors import ConfigError


def prepare(config: TrainingConfig, world: World, *, one_size: bool = True) -> None:
    """Refuses what can be refused before any data is read; then seeds the new weights.

    Args:
        one_size: whether all pictures have the same size, see `set_determinism`.

    Raises:
        ConfigError: a value that makes no sense.
        RunFolderError: the output is in use.
    """
    if not -(2**63) <= config.seed < 2**63:
        raise ConfigError(f"seed {config.seed}: give a number of at most 63 bits")
    on_main(world, lambda: check_output(config.output, resume=config.resume, overwrite=config.overwrite))
    portion_size(config.train, world.size)
    check_schedule(config.schedule)
    check_optimizer(config.optimizer)
    set_determinism(config.deterministic, one_size=one_size)
    torch.manual_seed(config.seed)


def fit(
    config: TrainingConfig,
    world: World,
    model: nn.Module,
    *,
    description: str,
    samples: int,
    fingerprint: str,
    batches: Callable[[StepSampler], Iterable[Any]],
    compute_loss: ComputeLoss,
    test: Callable[[], dict[str, Any]],
    monitor: Callable[[], dict[str, Any]] | None = None,
    curve_values: Callable[[dict[str, Any]], dict[str, float]],
    save: Callable[[Path], None],
    format_results: Callable[[dict[str, Any]], str],
    name_sample: Callable[[int], str],
    watch: str = "loss",
    official_data: bool | None = None,
    facts: Mapping[str, Any] | None = None,
    order: Callable[[int], Tensor] | None = None,
    finish: Callable[[], None] = lambda: None,
    compile_network: CompileNetwork = compile_whole,
) -> dict[str, Any] | None:
    """Trains `model`, or goes on with it, tests it, and leaves all in the run folder `config.output`.

    Args:
        description: printed at the start.
        samples: in the training set, whose digest is `fingerprint`.
        batches: makes this process's micro-batches in the order of a sampler.
        test: the results of the model as it is, the same in every process.
        monitor: those of them that are wanted during training too; all by default.
        curve_values: what of the results is worth a curve.
        save: writes the final weights.
        format_results: a table of the results, to print.
        name_sample: what to call a training sample in messages.
        watch: which of the numbers of `compute_loss` a plateau or a warm-up of the schedule watches.
        official_data: whether the data are a published set's own files; None where that is not known.
        facts: what else the run's record says, and must say again when the run is resumed.
        order: gives the order (samples,) int64 of an epoch, where it is not the plain shuffle (see `StepSampler`).
        finish: called when the last step is done, before the weights are saved.
        compile_network: what `train.compile` does.

    Returns:
        The results in the main process, None in the others.
    """
    options = config.train
    run_folder = open_run(
        config.output,
        config,
        resume=config.resume,
        overwrite=config.overwrite,
        allow_mismatch=config.allow_mismatch,
        elastic=config.elastic,
        data_fingerprint=fingerprint,
        official_data=official_data,
        processes=world.size,
        threads=torch.get_num_threads(),
        **(facts or {}),
    )
    with entered_by_main(world, run_folder) as run, explain_loss(world):
        state = TrainState(
            model,
            _optimizer(model, config),
            Plateau(config.schedule) if config.schedule.name == "plateau" else None,
            WeightAverage(model, options.ema_decay) if options.ema_decay else None,
            ErrorWarmup(config.schedule) if config.schedule.warmup == "error" else None,
        )
        checkpoints = Path(str(config.output)) / "checkpoints"
        start = restore(checkpoints, state, options.steps, world) if config.resume else 0
        on_main(world, lambda: _begin(run, start, repeated_tests(start, options)))
        if run is not None:
            processes = f"{world.size} process(es) on {world.device.type}"
            print(f"{description}\n{processes}, steps {start} to {options.steps}", flush=True)
        sampler = StepSampler(
            samples,
            batch_size=options.batch_size,
            accumulate=options.accumulate,
            start_step=start,
            steps=options.steps,
            seed=config.seed,
            rank=world.rank,
            world_size=world.size,
            order=order,
        )
        train(
            state,
            batches(sampler),
            compute_loss,
            lambda step: learning_rate(step, base=config.optimizer.lr, steps=options.steps, schedule=config.schedule),
            options=options,
            world=world,
            run=run,
            start_step=start,
            seed=config.seed,
            precision=config.precision,
            watch=watch,
            describe_batch=lambda step: _describe_batch(sampler, step, name_sample, run.path if run else None),
            evaluate=lambda: curve_values((monitor or test)()),
            compile_network=compile_network,
        )
        finish()
        if run is not None:
            save(run.weights)
        results = test()
        if run is None:
            return None
        run.log(options.steps, "test", curve_values(results))
        run.update(results=results)
        print(format_results(results))
        print_outcome(config, run.weights, results)
        return results


def _begin(run: RunFolder | None, start: int, tests: set[int]) -> None:
    if run is not None:
        run.begin(start)
        run.forget_after(start, tests)


def print_outcome(config: TrainingConfig, weights: Path, results: dict[str, Any]) -> None:
    """Says how results compare with what the experiment should reach, and where the weights are."""
    if config.expected:
        print(compare_with_expected(results, config.expected))
    print(f"weights: {weights}")


def _describe_batch(sampler: StepSampler, step: int, name_sample: Callable[[int], str], folder: Path | None) -> str:
    """Names the samples of a step: the first in words, all of them in a file of the run folder."""
    names = [name_sample(index) for index in sampler.indices_of(step)]
    text = f", a batch of {len(names)} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
    if folder is None:
        return text
    path = folder / DIVERGED_BATCH
    write_json(path, {"step": step + 1, "samples": names})
    return f"{text}, all named in {path}"


def _optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    options = config.optimizer
    return torch.optim.SGD(
        parameter_groups(model, options.bias_lr_factor),
        lr=options.lr,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
        # One pass over weight, gradient and momentum instead of one for each operation; and only a fused update takes
        # its rate from the device, as a captured step must.
        fused=True,
    )


def parameter_groups(model: nn.Module, bias_lr_factor: float) -> list[dict[str, Any]]:
    """The trainable parameters; biases in a group of their own where they learn at another rate."""
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if bias_lr_factor == 1:
        return [{"params": list(trainable.values())}]
    weights, biases = ([p for n, p in trainable.items() if n.endswith("bias") == which] for which in (False, True))
    return [{"params": weights}, {"params": biases, "lr_factor": bias_lr_factor}]
