"""Those of the commands of `prepare_data` that classification needs: ImageNet from its archives, statistics, shards."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from backbones.data.folder import read_folder
from backbones.data.ground_truth import read_ground_truth
from backbones.data.imagenet import (
    OFFICIAL,
    PreparedSplit,
    check_training_archive,
    check_validation_archive,
    prepare_training,
    prepare_validation,
)
from backbones.data.readers import read_split
from backbones.data.shards.index import INDEX, ShardIndex
from backbones.data.shards.packing import pack
from backbones.data.shards.storage import is_url
from backbones.data.shards.verifying import verify_split
from backbones.data.statistics import PixelStatistics, compute_statistics, save_statistics, statistics_path
from backbones.data.unpacking import describe_size
from backbones.errors import ConfigError, DataError
from backbones.markdown import format_table

_LARGEST_CROP = 2048  # pixels a side: the mean picture is held in memory several times


def imagenet(output: str, train: str | None = None, val: str | None = None, ground_truth: str | None = None) -> None:
    """Makes ImageNet's class folders from the official archives.

    Writes <output>/train/<synset>/*.JPEG and <output>/val/<synset>/*.JPEG. Archives of the same form with fewer classes
    or pictures will do. The archives are checked first; a run that was stopped goes on when it is started again.
    Example: python tools/prepare_data.py imagenet --train ILSVRC2012_img_train.tar --val ILSVRC2012_img_val.tar
    --ground_truth ILSVRC2012_devkit_t12.tar.gz --output imagenet

    Args:
        output: the folder to make, or to go on with.
        train: ILSVRC2012_img_train.tar (a tar file of one tar file a class).
        val: ILSVRC2012_img_val.tar; wants ground_truth too.
        ground_truth: the classes of the validation pictures, told apart by content: the development kit
            (ILSVRC2012_devkit_t12.tar.gz), lines "ILSVRC2012_val_00000001.JPEG n01751748" (also with a comma, as
            Kaggle's LOC_val_solution.csv), or one synset a line in the order of the pictures.
    """
    if train is None and val is None:
        raise ConfigError("train and val are missing: name one archive or both")
    if val is not None and ground_truth is None:
        raise ConfigError("ground_truth is missing: name the development kit or a list of the classes of --val")
    if val is None and ground_truth is not None:
        raise ConfigError("ground_truth is of validation pictures: name their archive with --val, or leave it out")
    truth = read_ground_truth(Path(ground_truth)) if ground_truth is not None else {}
    if train is not None:
        check_training_archive(Path(train))
    if val is not None:
        check_validation_archive(Path(val), truth)
    folder = Path(output)
    splits = []
    if train is not None:
        splits.append(prepare_training(Path(train), folder))
    if val is not None:
        splits.append(prepare_validation(Path(val), truth, folder))
    print(f"{folder}\n{_summary(folder, splits)}")
    if val is not None and (rest := len(truth) - splits[-1].classes.total()):
        print(f"The ground truth speaks of {rest:,} more pictures, which {val} does not hold.")
    print(f"Next: python tools/check_data.py --root {output} --splits {' '.join(split.name for split in splits)}")


def _summary(output: Path, splits: list[PreparedSplit]) -> str:
    rows = [["split", "pictures", "classes", "a class", "size", "written"]]
    notes = []
    for split in splits:
        pictures, classes = split.classes.total(), len(split.classes)
        least, most = min(split.classes.values()), max(split.classes.values())
        each = f"{least}" if least == most else f"{least}-{most}"
        size = describe_size(split.size)
        rows.append([split.name, f"{pictures:,}", f"{classes:,}", each, size, f"{split.written:,}"])
        if (pictures, classes) != OFFICIAL[split.name]:
            official_pictures, official_classes = OFFICIAL[split.name]
            notes.append(
                f"{split.name}: the official set has {official_pictures:,} pictures of {official_classes:,} classes."
            )
        if split.foreign:
            folder, more = split.foreign.most_common(1)[0]
            notes.append(
                f"{split.name}: {split.foreign.total():,} file(s) are there that the archive does not hold "
                f"({more:,} of them in {output / split.name / folder}): training would use them."
            )
    return "\n".join([format_table(rows, texts=1, bars=False), *notes])


def shards(
    root: str,
    output: str,
    split: str = "train",
    megabytes: int = 128,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Packs class folders into a few large files, for network file systems, object storage and many machines.

    Writes <output>/<split>/shard-000000.tar, ... (tar files as WebDataset lays them out, pictures byte for byte,
    shuffled once) and index.safetensors, for training with --data.name shards --data.root <output>. A run that was
    stopped goes on when it is started again. Example:
    python tools/prepare_data.py shards --root imagenet --split train --output imagenet-shards

    Args:
        root: the folder of the data, <root>/<split>/<class>/*.JPEG.
        output: the folder to make, or to go on with.
        split: which one to pack.
        megabytes: of a shard, about; all have as many pictures.
        seed: of the shuffle.
        overwrite: replace the shards that are there.
    """
    if megabytes < 1 or seed < 0:
        raise ConfigError(f"megabytes {megabytes}, seed {seed}: give 1 or more, and 0 or more")
    folder = Path(output) / split
    if (folder / INDEX).exists() and not overwrite:
        raise DataError(f"{folder / INDEX}: is there already; replace the shards with --overwrite")
    dataset = read_folder(root, split)
    size = megabytes * 10**6
    index = pack(dataset, Path(root) / split, folder, shard_size=size, seed=seed, overwrite=overwrite)
    print(f"{folder}\n{_describe_shards(index, split)}")
    print(f"Next: python tools/prepare_data.py verify_shards --root {output} --split {split}")


def verify_shards(root: str, split: str = "train") -> None:
    """Reads shards whole and compares each with its digest (SHA-256) in the index, as after a copy.

    Example: python tools/prepare_data.py verify_shards --root imagenet-shards --split train

    Args:
        root: the folder of the shards, or its URL.
        split: which one to verify.
    """
    index = verify_split(root, split)
    print(f"{_describe_shards(index, split)}\nAll are as they were written.")


def _describe_shards(index: ShardIndex, split: str) -> str:
    sizes, counts = index.shard_sizes, index.pictures_by_shard
    rows = [
        ["split", "pictures", "classes", "shards", "pictures each", "size", "largest"],
        [
            split,
            f"{len(index):,}",
            f"{len(index.class_names):,}",
            f"{len(sizes):,}",
            f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()}-{counts.max()}",
            describe_size(int(sizes.sum())),
            describe_size(int(sizes.max())),
        ],
    ]
    return format_table(rows, texts=1, bars=False)


def statistics(
    root: str,
    name: Literal["folder", "shards", "cifar10"] = "folder",
    split: str = "train",
    input_size: int = 224,
    resize: int | None = 256,
    workers: int = 4,
    overwrite: bool = False,
) -> None:
    """Measures the mean picture and the colours of a training set, as the paper's training wants them (Section 3.4).

    Prints them, and writes <root>/statistics_<input_size>.safetensors, which training on class folders or shards reads
    when it has --data.mean pixel or --data.color pca. (On CIFAR-10 training measures them itself: nothing is written.)
    Example: python tools/prepare_data.py statistics --root imagenet

    Args:
        root: the folder of the data (for shards behind a URL measure a copy on disk, and put the file beside them).
        name: folder (<root>/<split>/<class>/*.JPEG), shards (<root>/<split>/shard-*.tar) or cifar10
            (<root>/cifar-10-batches-py; add --input_size 32 --resize null).
        split: the split that is trained on.
        input_size: side of the centre crops in pixels; that of training (data.input_size).
        resize: shorter side before cropping (data.test_resize); null leaves pictures as they are.
        workers: processes that read pictures.
        overwrite: measure anew where that has been done.
    """
    if input_size > _LARGEST_CROP:
        raise ConfigError(f"input_size {input_size}: give {_LARGEST_CROP} at most")
    if input_size < 1 or workers < 0 or (resize is not None and resize < input_size):
        raise ConfigError(
            f"input_size {input_size}, resize {resize}, workers {workers}: give 1 or more, input_size or more, and "
            "0 or more"
        )
    if is_url(root):
        raise ConfigError(f"root {root}: measure a copy of the shards on disk, and put the file that this writes there")
    dataset = read_split(name, root, split, None, input_size, 0)
    path = statistics_path(root, input_size)
    if name != "cifar10" and path.exists() and not overwrite:
        raise DataError(f"{path}: is there already; replace it with --overwrite")
    found = compute_statistics(dataset, size=input_size, shorter=resize, workers=workers)
    print(_describe(found, split))
    if name != "cifar10":
        save_statistics(path, found)
        print(f"written to {path}")


def _describe(found: PixelStatistics, split: str) -> str:
    deviation = np.sqrt(np.diag(found.covariance))
    size = found.mean_picture.shape[-1]
    rows = [
        f"{found.count:,} pictures of {split}, their centre {size}x{size}, values of 0..255",
        f"{'':<24}{'R':>10}{'G':>10}{'B':>10}",
        _row("mean", found.mean),
        _row("standard deviation", deviation),
        *(_row(f"covariance {c}", line) for c, line in zip("RGB", found.covariance, strict=True)),
        *(
            _row(f"component {k}, {share:.1%}", vector, 3)
            for k, (vector, share) in enumerate(
                zip(found.eigenvectors.T, found.eigenvalues / max(found.eigenvalues.sum(), 1e-12), strict=True), 1
            )
        ),
        f"{'eigenvalues':<24}" + "".join(f"{value:>10.1f}" for value in found.eigenvalues),
        f"mean picture: from {found.mean_picture.min():.1f} to {found.mean_picture.max():.1f}",
    ]
    return "\n".join(rows)


def _row(name: str, values: np.ndarray, digits: int = 1) -> str:
    return f"{name:<24}" + "".join(f"{value:>10.{digits}f}" for value in values)


COMMANDS: dict[str, Callable[..., Any]] = {
    "imagenet": imagenet,
    "statistics": statistics,
    "shards": shards,
    "verify_shards": verify_shards,
}
