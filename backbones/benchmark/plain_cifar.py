"""Training on CIFAR-10 the usual way, as public reproductions do it: the reference that ours is measured beside.

Pictures are PIL pictures, varied one by one by torchvision's transforms in the processes of a DataLoader; the network
runs eagerly in fp32 with PyTorch's default layout. Nothing here is tuned, and nothing is slowed down: the loss is not
even read, which on a GPU would make every step wait.
"""

import os
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from backbones.benchmark.measure import Segment, Stopwatch
from backbones.data.datasets import ClassificationDataset

# Of CIFAR-10's channels, of 0..1, as usual.
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class PlainPictures(Dataset):
    """Varied pictures (3, 32, 32) and their labels."""

    def __init__(self, dataset: ClassificationDataset):
        self.dataset = dataset
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.dataset.picture(index)), int(self.dataset.labels[index])


class PlainTraining:
    """The usual loop, a step at a time.

    Args:
        model: is moved to the device.
        batch_size: of all steps but the last of an epoch, which takes what is left.
        milestones: steps at which the rate falls to a tenth.
        workers: loading processes.
    """

    def __init__(
        self,
        model: nn.Module,
        dataset: ClassificationDataset,
        *,
        batch_size: int,
        device: torch.device,
        lr: float = 0.1,
        milestones: tuple[int, ...] = (),
        workers: int | None = None,
    ):
        self.model, self.device = model.to(device), device
        self.loader: DataLoader = DataLoader(
            PlainPictures(dataset),
            batch_size=batch_size,
            shuffle=True,
            num_workers=usual_workers() if workers is None else workers,
            pin_memory=device.type == "cuda",
        )
        self.optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4)
        self.schedule = torch.optim.lr_scheduler.MultiStepLR(self.optimizer, milestones)
        self.loss = torch.tensor(float("nan"))
        self._steps = self._train()

    def _train(self) -> Iterator[int]:
        """Epoch after epoch; yields after each step how many pictures it took."""
        while True:
            for images, labels in self.loader:
                self.model.train()
                images = images.to(self.device, non_blocking=True)
                labels = labels.to(self.device, non_blocking=True)
                self.optimizer.zero_grad()
                loss = nn.functional.cross_entropy(self.model(images), labels)
                loss.backward()
                self.optimizer.step()
                self.schedule.step()
                self.loss = loss.detach()
                yield len(images)

    def step(self) -> int:
        """Takes one step; the pictures in its batch."""
        return next(self._steps)

    def segment(self, steps: int, discard: int) -> Segment:
        """Takes `discard` steps, then `steps` that are timed.

        In the pause before a segment the loading processes fill their queue. As many steps as it holds batches must be
        discarded, or a loop that waits for its pictures would seem faster than it is.
        """
        for _ in range(max(discard, self.batches_ahead)):
            self.step()
        watch = Stopwatch(self.device)
        watch.start()
        pictures = sum(self.step() for _ in range(steps))
        return Segment(pictures, watch.stop())

    @property
    def batches_ahead(self) -> int:
        """How many batches the loading processes make before they are asked for."""
        return self.loader.num_workers * (self.loader.prefetch_factor or 0)

    def close(self) -> None:
        """Ends the loading processes."""
        self._steps.close()  # type: ignore[attr-defined]


def usual_workers() -> int:
    """Loading processes that reproductions take: a few, one a core at most."""
    return min(4, os.cpu_count() or 1)
