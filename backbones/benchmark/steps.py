"""Training steps on one batch that is on the device already: ours, and as reference scripts have them."""

from functools import partial
from itertools import repeat

import torch
from torch import Tensor, nn

from backbones.benchmark.measure import Segment, Stopwatch
from backbones.benchmark.our_cifar import Variant
from backbones.engine.acceleration import Precision, autocast
from backbones.engine.prefetch import prefetch
from backbones.engine.step import CapturedStep, Step, TakeStep
from backbones.inputs import PrepareInput
from backbones.train import classification_loss


class OurSteps:
    """The step of `pretrain`, without what its loop does now and then: logs, checkpoints, checks.

    Args:
        model: is moved to the device.
        batch: tensors on the device, given to every step.
        prepare: makes the network's input and the labels of `batch`.
        size: pictures of the batch.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: tuple[Tensor, ...],
        prepare: PrepareInput,
        variant: Variant,
        *,
        size: int,
        device: torch.device,
        lr: float,
    ):
        model.to(device).to(memory_format=torch.channels_last).train()
        step = Step(
            torch.compile(model) if variant.compiled else model,  # type: ignore[arg-type]
            torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4, fused=True),
            classification_loss(prepare),
            accumulate=1,
            precision=variant.precision,
            device=device,
        )
        self._step, self._model, self._captured = step, model, variant.captured
        self._take_step = self._make_step()
        self._batches = prefetch(repeat(batch), device)
        self._size, self._device = size, device

    def _make_step(self) -> TakeStep:
        return CapturedStep(self._step, self._model) if self._captured else self._step

    def forget(self) -> None:
        """Gives back what a step leaves but weights and momenta: the gradients; a captured step is captured anew."""
        self._take_step = self._make_step()
        self._step.optimizer.zero_grad(set_to_none=True)

    def step(self) -> Tensor:
        """Takes one step; its loss."""
        return self._take_step(self._batches)["loss"]

    def segment(self, steps: int, discard: int) -> Segment:
        """Takes `discard` steps, then `steps` that are timed."""
        return _timed(self, steps, discard, self._size, self._device)


class UsualSteps:
    """PyTorch's default layout, autocast where it is asked for, SGD as it comes; the network runs eagerly.

    Nothing is slowed down: pictures are normalised once and for all, and the loss is not read.

    Args:
        model: is moved to the device.
        images: (B, 3, H, W) float, the batch of every step, on the device.
        labels: (B,) int64.
    """

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor, *, precision: Precision, lr: float):
        self._device = images.device
        self._model = model.to(self._device).train()
        self._images, self._labels = images.contiguous(), labels
        self._autocast = partial(autocast, precision, self._device)
        self._optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4)

    def forget(self) -> None:
        """Gives back what a step leaves but weights and momenta: the gradients."""
        self._optimizer.zero_grad(set_to_none=True)

    def step(self) -> Tensor:
        """Takes one step; its loss."""
        with self._autocast():
            loss = nn.functional.cross_entropy(self._model(self._images), self._labels)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return loss.detach()

    def segment(self, steps: int, discard: int) -> Segment:
        """Takes `discard` steps, then `steps` that are timed."""
        return _timed(self, steps, discard, len(self._images), self._device)


def _timed(way: OurSteps | UsualSteps, steps: int, discard: int, size: int, device: torch.device) -> Segment:
    for _ in range(discard):
        way.step()
    watch = Stopwatch(device)
    watch.start()
    for _ in range(steps):
        way.step()
    return Segment(steps * size, watch.stop())
