"""The runs that are hurt: networks and data so small that a step takes some milliseconds, each trained in seconds."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from backbones.data.shapes import shapes_for_classification
from tests.faults.running import ROOT, tool_command

_COMMON = ("--schedule.warmup_steps", "2", "--device", "cpu")
_CLASSIFIER = (
    *("--config", str(ROOT / "configs/shapes/classify_resnet.yaml"), "--model.options", "{width: 4}"),
    *("--data.input_size", "32", "--train.batch_size", "8", *_COMMON),
)
_DETECTOR = (
    *("--config", str(ROOT / "configs/shapes/detect_resnet.yaml"), "--backbone.options", "{width: 4}"),
    *("--data.train_size", "16", "--data.test_size", "5", "--data.shorter_side", "64", "--data.longest_side", "96"),
    *("--rpn.channels", "16", "--roi.rois_per_image", "16", "--roi.pool_size", "7", "--train.workers", "0"),
    *_COMMON,
)


@dataclass(frozen=True)
class Workload:
    """A training, with all but its output.

    Args:
        name: what it is called.
        tool: of `tools/`.
        options: of the tool.
        steps: optimizer steps, over all stages.
        batch_size: pictures of a step.
        checkpoint_every: steps between checkpoints.
        pictures: class folders that it reads, which a fault may hurt a copy of.
        backbone: the workload whose weights it starts from.
        processes: of torchrun; 1 for a plain process.
        log_every: steps of a line of the curve. With more than 1, a checkpoint in the middle keeps what the next line
            averages; the undisturbed run then has no more checkpoints than others, as each ends a line.
    """

    name: str
    tool: str
    options: tuple[str, ...]
    steps: int
    batch_size: int
    checkpoint_every: int
    pictures: Path | None = None
    backbone: str | None = None
    processes: int = 1
    log_every: int = 1

    def arguments(self, output: Path, pictures: Path | None = None, weights: Path | None = None) -> list[str]:
        """The arguments of the tool.

        Args:
            output: its run folder.
            pictures: class folders to read in place of its own.
            weights: what a detector starts from.
        """
        data = pictures or self.pictures
        return [
            *self.options,
            *("--train.checkpoint_every", str(self.checkpoint_every), "--train.log_every", str(self.log_every)),
            *("--output", str(output)),
            *(("--data.root", str(data)) if data else ()),
            *(("--backbone.weights", str(weights)) if weights else ()),
        ]

    def command(self, arguments: list[str]) -> list[str]:
        """The command line with these arguments."""
        return tool_command(self.tool, arguments, self.processes)

    def in_processes(self, processes: int) -> "Workload":
        """The same in several processes under torchrun; another run, with an undisturbed one of its own."""
        return replace(self, name=f"{self.name} x{processes}", processes=processes)


def workloads(pictures: Path) -> dict[str, Workload]:
    """All workloads by name. The pictures of class folders lie where `write_pictures` has put them."""
    shapes = ("--data.train_size", "160", "--data.test_size", "13", "--train.workers", "0")
    tested = ("--train.steps", "60", "--train.evaluate_every", "10")
    wide = ("--model.options", "{width: 24}")  # its checkpoint of 15 MB takes a while to write
    folders = ("--data.name", "folder", "--train.workers", "2")
    joint = ("--train.steps", "40")
    alternating = ("--scheme", "alternating", "--train.steps", "12", "--rpn_stages.steps", "12")
    averaged = (*_CLASSIFIER, *shapes, *tested, "--train.ema_decay", "0.9")
    found = [
        Workload("classifier", "pretrain", averaged, 60, 8, 4, log_every=3),
        Workload("wide classifier", "pretrain", (*_CLASSIFIER, *shapes, *wide, "--train.steps", "30"), 30, 8, 3),
        Workload("folders", "pretrain", (*_CLASSIFIER, *folders, *tested), 60, 8, 4, pictures),
        Workload("detector", "train_detector", (*_DETECTOR, *joint), 40, 4, 4, backbone="classifier"),
        Workload("alternating", "train_detector", (*_DETECTOR, *alternating), 48, 4, 3, backbone="classifier"),
    ]
    divisible = (*_CLASSIFIER, *shapes, *tested, "--train.batch_size", "12")  # by 2, 3 and 4 processes
    shared = Workload("shared classifier", "pretrain", divisible, 60, 12, 4)
    longer = (*divisible, "--train.steps", "240", "--train.evaluate_every", "60")  # so that hosts have time to join
    long = Workload("long shared classifier", "pretrain", longer, 240, 12, 4)
    found += [*(shared.in_processes(count) for count in (2, 4)), long.in_processes(2)]
    return {workload.name: workload for workload in found}


def write_pictures(root: Path) -> None:
    """Writes built-in shapes as class folders: 48 JPEG files to train on, 12 to test."""
    for split, count in (("train", 48), ("val", 12)):
        data = shapes_for_classification(split, count, 32)
        for index, label in enumerate(data.labels):
            folder = root / split / data.class_names[int(label)]
            folder.mkdir(parents=True, exist_ok=True)
            data.picture(index).save(folder / f"{index}.jpg", quality=95)


def training_files(pictures: Path) -> Iterator[Path]:
    """The pictures that are trained on, in order."""
    yield from sorted((pictures / "train").rglob("*.jpg"))
