"""Whether ours learns what the usual loop learns: the test errors of both, from the same steps of one schedule."""

import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from backbones.analysis.curves import read_curve
from backbones.benchmark.our_cifar import DATA, Variant
from backbones.benchmark.plain_cifar import MEAN, STD, PlainTraining
from backbones.config import ModelConfig, OptimizerConfig, PretrainConfig
from backbones.data.readers import read_split
from backbones.engine.distributed import World
from backbones.engine.loop import TrainOptions
from backbones.engine.schedule import ScheduleOptions
from backbones.evaluate import test_classifiers
from backbones.models import get_model
from backbones.progress import progress_bar
from backbones.train import pretrain
from backbones.weights import WeightsMetadata

POINTS = 8  # evaluations


@dataclass(frozen=True)
class ErrorCurves:
    """Test errors in percent.

    Args:
        steps: after which the network was tested.
        ours, reference: the errors then.
        variant: of ours.
        seed: of both ways' weights, order and augmentation; what is drawn of it differs but for the weights.
    """

    name: str
    variant: str
    seed: int
    steps: list[int]
    ours: list[float]
    reference: list[float]

    def to_json(self) -> dict[str, Any]:
        """As it is."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            f"{self.name}: top-1 errors in % on the test set, one run each, both of seed {self.seed}; "
            f"ours is {self.variant}, the reference fp32",
            f"{'step':>8} {'ours':>8} {'reference':>10}",
        ]
        rows = zip(self.steps, self.ours, self.reference, strict=True)
        return "\n".join([*lines, *(f"{step:>8,} {ours:>8.2f} {plain:>10.2f}" for step, ours, plain in rows)])


def milestones(steps: int) -> list[int]:
    """Where the rate falls in a run of `steps`: at a half and at three quarters, as 32k and 48k of 64k (4.2)."""
    return sorted({max(1, steps // 2), max(1, steps * 3 // 4)})


def error_curves(
    name: str, variant: Variant, root: str, *, steps: int, batch_size: int, device: torch.device, seed: int
) -> ErrorCurves:
    """Trains a network both ways on real pictures, with the same schedule and the same test.

    Both normalise channels the usual way, so that nothing but the way to train differs.

    Args:
        variant: of our training; the usual way is in fp32.
        root: the folder of CIFAR-10.
        steps: of each training.
    """
    every = max(1, steps // POINTS)
    ours = _train_ours(name, variant, root, steps, every, batch_size, device, seed)
    reference = _train_plainly(name, root, steps, every, batch_size, device, seed)
    assert list(ours) == list(reference)
    return ErrorCurves(name, variant.name, seed, list(ours), list(ours.values()), list(reference.values()))


def _train_ours(
    name: str, variant: Variant, root: str, steps: int, every: int, batch_size: int, device: torch.device, seed: int
) -> dict[int, float]:
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        output = Path(folder) / "run"
        pretrain(
            PretrainConfig(
                model=ModelConfig(name),
                data=replace(
                    DATA,
                    root=root,
                    test_split="test",
                    mean=[255 * value for value in MEAN],
                    std=[255 * value for value in STD],
                ),
                train=TrainOptions(
                    steps=steps,
                    batch_size=batch_size,
                    checkpoint_every=steps,
                    evaluate_every=every,
                    capture=variant.captured,
                    compile=variant.compiled,
                ),
                optimizer=OptimizerConfig(),
                schedule=ScheduleOptions(name="step", milestones=milestones(steps)),
                output=str(output),
                seed=seed,
                precision=variant.precision,
                device="cuda" if device.type == "cuda" else "cpu",
            )
        )
        return {int(step): float(error) for step, error in read_curve(output).test}


def _train_plainly(
    name: str, root: str, steps: int, every: int, batch_size: int, device: torch.device, seed: int
) -> dict[int, float]:
    torch.manual_seed(seed)
    train_set, test_set = (read_split("cifar10", root, split, None, 32, 0) for split in ("train", "test"))
    model = get_model(name, len(train_set.class_names))
    metadata = WeightsMetadata(
        task="classification",
        architecture=name,
        options={},
        classes=train_set.class_names,
        mean=[255 * value for value in MEAN],
        std=[255 * value for value in STD],
        input_size=32,
        test_resize=None,
    )
    training = PlainTraining(
        model, train_set, batch_size=batch_size, device=device, milestones=tuple(milestones(steps))
    )
    errors = {}
    try:
        for step in progress_bar(range(1, steps + 1), unit="step", description=f"{name}, the usual way"):
            training.step()
            if step % every == 0 or step == steps:
                model.eval()
                results = test_classifiers(
                    [(model, metadata)], test_set, ["center"], world=World(0, 1, device), batch_size=512, workers=0
                )
                errors[step] = results["center"]["top1_error"]
    finally:
        training.close()
    return errors
