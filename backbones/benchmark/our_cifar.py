"""Training on CIFAR-10 as `pretrain` does it, a segment at a time: its input, its loss and its loop, not a copy."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from backbones.benchmark.measure import Segment, Stopwatch
from backbones.config import ClassificationData
from backbones.data.datasets import ClassificationDataset
from backbones.data.sampler import StepSampler
from backbones.data.statistics import compute_statistics
from backbones.engine.acceleration import Precision
from backbones.engine.distributed import World
from backbones.engine.loop import TrainOptions, train
from backbones.engine.state import TrainState
from backbones.inputs import TrainingInput, training_input
from backbones.train import classification_loss
from backbones.weights import WeightsMetadata

# Section 4.2: zeros around the picture, random crops and mirror images; here whole batches at a time, on the device.
DATA = ClassificationData(
    name="cifar10",
    input_size=32,
    test_resize=None,
    augmentation="pad_crop_flip",
    mean="pixel",
    std=[1.0, 1.0, 1.0],
    resident=True,
)


@dataclass(frozen=True)
class Variant:
    """Options of `pretrain` that make it faster.

    Args:
        precision: fp32, or bf16 (mixed).
        compiled: `train.compile`.
        captured: `train.capture`, on GPUs.
    """

    precision: Precision = "fp32"
    compiled: bool = False
    captured: bool = False

    @property
    def name(self) -> str:
        """Such as "bf16-compiled"."""
        return "-".join([self.precision, *(word for word in ("compiled", "captured") if getattr(self, word))])


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant(precision, compiled, captured)
        for captured in (False, True)
        for precision in ("fp32", "bf16")
        for compiled in (False, True)
    )
}


def resident_input(dataset: ClassificationDataset, architecture: str, device: torch.device) -> TrainingInput:
    """The pictures on the device, less their mean picture."""
    statistics = compute_statistics(dataset, size=32, shorter=None, workers=0, progress=False)
    metadata = WeightsMetadata(
        task="classification",
        architecture=architecture,
        options={},
        classes=dataset.class_names,
        mean=statistics.mean_picture.tolist(),
        std=[1.0, 1.0, 1.0],
        input_size=32,
        test_resize=None,
    )
    return training_input(dataset, DATA, None, metadata, workers=0, device=device, dtype=torch.float32)


class OurTraining:
    """Our loop, a segment at a time.

    Args:
        model: is moved to the device.
        source: from `resident_input`.
        size: pictures in the data set.
    """

    def __init__(
        self,
        model: nn.Module,
        source: TrainingInput,
        variant: Variant,
        *,
        size: int,
        batch_size: int,
        device: torch.device,
        lr: float = 0.1,
    ):
        model.to(device).to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4, fused=True)
        self._state = TrainState(model, optimizer)
        self._source, self._variant, self._lr = source, variant, lr
        self._size, self._batch_size, self._device = size, batch_size, device
        self._done = 0

    def segment(self, steps: int, discard: int, wait: Callable[[], object] = lambda: None) -> Segment:
        """Goes on for `discard` steps, then `steps` that are timed; `wait` is called between them."""
        first, timed, last = self._done, self._done + discard, self._done + discard + steps
        watch = Stopwatch(self._device)

        def rate(step: int) -> float:  # is asked for at the start of each step
            if step == timed:
                wait()
                watch.start()
            return self._lr

        sampler = StepSampler(
            self._size,
            batch_size=self._batch_size,
            accumulate=1,
            start_step=first,
            steps=last,
            seed=0,
            rank=0,
            world_size=1,
        )
        train(
            self._state,
            self._source.batches(sampler),
            classification_loss(self._source.prepare),
            rate,
            options=TrainOptions(
                steps=last,
                batch_size=self._batch_size,
                checkpoint_every=last,
                log_every=last,
                capture=self._variant.captured,
                compile=self._variant.compiled,
            ),
            world=World(1, 1, self._device),  # not the main process: no bar for each segment
            run=None,
            start_step=first,
            seed=0,
            precision=self._variant.precision,
        )
        self._done = last
        return Segment(steps * self._batch_size, watch.stop())
