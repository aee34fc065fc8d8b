"""The command `prepare_data`: brings data sets into the layout that the other commands read."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from backbones import prepare
from backbones.cli import run_commands
from backbones.errors import ConfigError
from backbones.markdown import format_table
from detection.data.coco import PICTURE_FOLDERS
from detection.data.preparing.coco import prepare_coco, summarise_coco
from detection.data.preparing.pasted import PastedSet, make_pasted
from detection.data.preparing.summary import describe_contents
from detection.data.preparing.voc import prepare_voc, summarise_voc
from detection.data.voc import UNIONS

DESCRIPTION = "Brings data sets into the layout that the other commands read, and measures what training wants of them."


def voc(output: str, archives: list[str]) -> None:
    """Makes the PASCAL VOC layout from the official archives.

    Writes <output>/VOCdevkit/VOC<year>/{JPEGImages,Annotations,ImageSets/Main}; what is of segmentation is left out.
    The archives are checked first; a run that was stopped goes on when it is started again. Example:
    python tools/prepare_data.py voc --archives VOCtrainval_06-Nov-2007.tar VOCtest_06-Nov-2007.tar
    VOCtrainval_11-May-2012.tar --output data

    Args:
        output: the folder to make, or to go on with.
        archives: some of VOCtrainval_06-Nov-2007.tar, VOCtest_06-Nov-2007.tar, VOCtrainval_11-May-2012.tar,
            VOC2012test.tar.
    """
    paths = [Path(archive) for archive in archives]
    _check_distinct(paths)
    contents = prepare_voc(paths, Path(output))
    devkit = Path(output) / "VOCdevkit"
    table, names = summarise_voc(devkit, contents)
    print("\n".join([str(devkit), table, *describe_contents(contents)]))
    training = {UNIONS["07+12"], *UNIONS["07+12"].split("+")}
    if set(UNIONS["07+12"].split("+")) <= set(names):
        names = ["07+12", *(name for name in names if name not in training)]
    if names:
        print(f"Next: python tools/check_data.py --name voc --root {devkit} --splits {' '.join(names)}")


def coco(
    output: str,
    archives: list[str] = [],  # noqa: B006 (jsonargparse reads the default)
    lists: list[str] = [],  # noqa: B006
) -> None:
    """Makes the COCO layout from the official archives.

    Writes <output>/<split>/*.jpg and <output>/annotations/{instances,image_info}_*.json; captions, keypoints and others
    are left out. The archives are checked first; a run that was stopped goes on when it is started again. Example:
    python tools/prepare_data.py coco --archives train2017.zip val2017.zip annotations_trainval2017.zip --output coco

    Args:
        output: the folder to make, or to go on with.
        archives: train2014.zip, val2014.zip, train2017.zip, val2017.zip, test2015.zip, test2017.zip,
            annotations_trainval2014.zip, annotations_trainval2017.zip, image_info_test2015.zip,
            image_info_test2017.zip, or some of them.
        lists: annotation files beside the archives, as instances_minival2014.json and
            instances_valminusminival2014.json.
    """
    if not archives and not lists:
        raise ConfigError("archives and lists are missing: name the official zip files, or loose annotation files")
    paths, loose = [Path(archive) for archive in archives], [Path(file) for file in lists]
    _check_distinct([*paths, *loose])
    contents = prepare_coco(paths, loose, Path(output))
    table, names = summarise_coco(Path(output), contents)
    print("\n".join([output, table, *describe_contents(contents)]))
    # Lists out of another split, and another year's splits, share pictures with the others.
    names = [name for name in names if PICTURE_FOLDERS.get(name) not in names and name[-4:] == names[0][-4:]]
    if names:
        print(f"Next: python tools/check_data.py --name coco --root {output} --splits {' '.join(names)}")


def pasted(
    pictures: str,
    output: str,
    backgrounds: str | None = None,
    count: int | None = None,
    width: int = 192,
    height: int = 160,
    seed: int = 0,
) -> None:
    """Makes a small set for localisation, in ILSVRC's CLS-LOC layout, of a set in class folders.

    Each picture is resized to a random size and aspect ratio and pasted at a random place of a background; its box is
    where it was pasted. A box of the whole picture is mostly wrong, and no object is tiny. Writes
    <output>/{Data,Annotations,ImageSets}/CLS-LOC with official file names. Example: python tools/prepare_data.py pasted
    --pictures imagenette --backgrounds coco/train2017 --output pasted

    Args:
        pictures: the folder of the class folders, <pictures>/{train,val}/<class>/*; classes are best WordNet ids.
        output: the folder to make; it must not be there.
        backgrounds: a folder of pictures, each fifth for val, the others for train; null takes other pictures of the
            split, blurred.
        count: how many pictures of each split to take at most, drawn of all; null takes all.
        width: of the pictures that are made, in pixels.
        height: of these pictures, in pixels.
        seed: of all random choices: the same seed makes the same set.
    """
    options = PastedSet(width, height, count, seed)
    splits = make_pasted(Path(pictures), Path(backgrounds) if backgrounds is not None else None, Path(output), options)
    rows = [["split", "pictures", "classes", "mean share of an object", "whole picture has IoU 0.5"]]
    for split in splits:
        numbers = [f"{split.pictures:,}", f"{split.classes:,}", f"{split.share:.1%}", f"{split.whole_is_right:.1%}"]
        rows.append([split.name, *numbers])
    print(f"{output}\n{format_table(rows, texts=1, bars=False)}")


def _check_distinct(paths: Sequence[Path]) -> None:
    for place, path in enumerate(paths):
        if path in paths[:place]:
            raise ConfigError(f"archives: {path} is named twice")


COMMANDS: dict[str, Callable[..., Any]] = prepare.COMMANDS | {"voc": voc, "coco": coco, "pasted": pasted}


def main(argv: Sequence[str] | None = None) -> None:
    """The command `prepare_data`."""
    run_commands(COMMANDS, DESCRIPTION, argv=argv)


if __name__ == "__main__":
    main()
