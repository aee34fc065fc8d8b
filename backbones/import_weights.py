"""Weights from elsewhere into a weights file of this project. Also the command."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from backbones.cli import run_command
from backbones.data.cifar10 import CLASS_NAMES as CIFAR10_CLASSES
from backbones.engine.outputs import check_writable
from backbones.errors import ConfigError, DataError
from backbones.importing.akamaster import import_akamaster
from backbones.importing.caffe_classifiers import import_caffe
from backbones.importing.network import ImportedNetwork
from backbones.importing.torchvision import import_torchvision
from backbones.weights import WeightsMetadata, save_weights

_LARGEST_LIST = 2**24  # bytes of a file of class names

Format = Literal["torchvision", "caffe", "akamaster"]


def import_weights(
    format: Format,
    input: str,
    arch: str,
    output: str,
    classes: str | None = None,
    mean: str | None = None,
) -> None:
    """Writes a weights file of this project from a checkpoint of another one.

    Its metadata say how the source prepares pictures. Caffe files are read without Caffe. Example:
    python tools/import_weights.py --format caffe --input ResNet-50-model.caffemodel --mean ResNet_mean.binaryproto
    --arch resnet50 --classes data/imagenet/train --output resnet50.safetensors

    Args:
        format: torchvision for its .pth files and .safetensors of the same names; caffe for MSRA's ResNets and Oxford's
            VGGs; akamaster for the CIFAR-10 networks of pytorch_resnet_cifar10.
        input: the file.
        arch: which network it holds, as resnet50, vgg16 or cifar_resnet20.
        output: the weights file to write.
        classes: a text file with a class name a line, or a folder whose sub-folders are the classes.
        mean: with caffe, a .binaryproto with the mean picture; without it the mean colour of VGG is subtracted.
    """
    if mean is not None and format != "caffe":
        raise ConfigError(f"--mean: only Caffe's networks have a file with their mean; {format}'s is known")
    path = Path(output)
    check_writable(path)
    network = _read(format, Path(input), arch, mean)
    metadata = _metadata(network, arch, _class_names(classes, arch, network.num_classes))
    save_weights(path, network.state, metadata)
    _report(format, metadata, output, named=classes is not None, own_mean=mean is not None)


def _read(format: Format, path: Path, arch: str, mean: str | None) -> ImportedNetwork:
    if format == "caffe":
        return import_caffe(path, arch, None if mean is None else Path(mean))
    return import_torchvision(path, arch) if format == "torchvision" else import_akamaster(path, arch)


def _metadata(network: ImportedNetwork, arch: str, class_names: list[str]) -> WeightsMetadata:
    how = network.preprocessing
    return WeightsMetadata(
        task="classification",
        architecture=arch,
        options=network.options,
        classes=class_names,
        mean=how.mean,
        std=how.std,
        input_size=how.input_size,
        test_resize=how.test_resize,
        color_order=how.color_order,
    )


def _class_names(source: str | None, arch: str, count: int) -> list[str]:
    """The names of a network's classes: from a file or folder, or else CIFAR-10's, or numbers.

    Raises:
        DataError: the file or folder can't be read, or has another number of names.
    """
    if source is None:
        is_cifar10 = arch.startswith("cifar_") and count == len(CIFAR10_CLASSES)
        return list(CIFAR10_CLASSES) if is_cifar10 else [str(i) for i in range(count)]
    path = Path(source)
    try:
        if not path.is_dir() and not (path.is_file() and path.stat().st_size <= _LARGEST_LIST):
            raise DataError(f"{path}: is no folder of classes and no file of their names: name one with --classes")
        if path.is_dir():
            names = sorted(entry.name for entry in path.iterdir() if entry.is_dir())
        else:
            names = [line.strip() for line in path.read_text("utf8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: no readable list of classes ({error})") from error
    if len(names) != count or len(set(names)) != count:
        raise DataError(
            f"{path}: holds {len(set(names))} different classes, the network has {count}: name its own with --classes"
        )
    return names


def _report(format: Format, metadata: WeightsMetadata, output: str, *, named: bool, own_mean: bool) -> None:
    """Says what was written, and what was assumed."""
    print(f"{output}: {metadata.architecture} {metadata.options} of {len(metadata.classes)} classes")
    mean = "one per pixel" if own_mean else metadata.mean
    print(f"preprocessing: {metadata.color_order} in 0..255, mean {mean}, deviation {metadata.std}")
    resize = f"shorter side {metadata.test_resize}, " if metadata.test_resize else ""
    print(f"tests: {resize}crops of {metadata.input_size}")
    if format == "caffe" and not own_mean and metadata.architecture.startswith("resnet"):
        print("note: MSRA's networks subtract a mean picture; give it by --mean ResNet_mean.binaryproto")
    if not named and metadata.classes[0] == "0":
        print("note: the classes are named by number; --classes takes a file of names or ImageNet's train folder")


def main(argv: Sequence[str] | None = None) -> None:
    """The command `import_weights`."""
    run_command(import_weights, argv=argv)


if __name__ == "__main__":
    main()
