"""The trainings that are watched: of networks so small that loading is what takes the time."""

from pathlib import Path

from tests.load.training import Training

ENDLESS = 10**7
"""Steps: they are stopped before."""


def classifier(data: Path, output: Path, workers: int) -> Training:
    """On class folders."""
    arguments = [
        *("tools/pretrain.py", "--data.name", "folder", "--data.root", str(data)),
        *("--data.input_size", "32", "--data.test_resize", "36", "--data.scale_range", "[36,40]"),
        *("--data.mean", "[120,120,120]", "--model.name", "cifar_resnet8", "--model.options.width", "4"),
        *("--optimizer.lr", "0.01", "--train.steps", str(ENDLESS), "--train.batch_size", "256"),
        *("--train.workers", str(workers), "--train.evaluate_every", "100", "--train.checkpoint_every", "100"),
    ]
    return Training(arguments, output, batch_size=256, workers=workers, tensors=2)


def detector(data: Path, output: Path, workers: int) -> Training:
    """On COCO's layout."""
    arguments = [
        *("tools/train_detector.py", "--data.name", "coco", "--data.root", str(data)),
        *("--data.train_split", "train", "--data.test_split", "val"),
        *("--data.shorter_side", "64", "--data.longest_side", "64"),
        *("--backbone.name", "resnet18", "--backbone.options.width", "4"),
        *("--backbone.norm", "batch", "--backbone.freeze_stages", "[]"),
        *("--anchors.scales", "[16,32]", "--rpn.channels", "8", "--rpn.post_nms_train", "50"),
        *("--rpn.post_nms_test", "50", "--rpn.min_size", "4", "--roi.rois_per_image", "16"),
        *("--optimizer.lr", "0.001", "--train.steps", str(ENDLESS), "--train.batch_size", "8"),
        *("--train.workers", str(workers), "--train.evaluate_every", "50", "--train.checkpoint_every", "50"),
    ]
    return Training(arguments, output, batch_size=8, workers=workers, tensors=8 * 4)
