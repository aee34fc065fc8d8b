"""A small localisation set in ILSVRC's layout (CLS-LOC), made of a set in class folders: each picture is pasted at a
random place of a background, and its box is where it was pasted.

A box of the whole picture is mostly wrong, and no object is tiny: an object covers 10 % to 55 % of its picture, evenly
drawn, a bit less where it would not fit.
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image, ImageFilter

from backbones.data.datasets import ClassificationDataset
from backbones.data.folder import read_folder
from backbones.data.pictures import ENDINGS, read_image
from backbones.engine.randomness import derive_seed
from backbones.errors import ConfigError, DataError
from backbones.progress import progress_bar

SHARES = (0.1, 0.55)  # of the picture's area, that an object covers
RATIOS = (0.5, 2.0)  # width / height of objects
SMALLEST = 32  # pixels, of a side of the pictures that are made
_SPLITS = {"train": 0, "val": 1}
_VAL_BACKGROUNDS = 5  # each fifth background is for validation, the others are for training
_BLUR = 0.06  # of the width: the radius where a class picture is the background
_QUALITY = 90

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class PastedSet:
    """What is made.

    Args:
        width, height: of its pictures.
        count: pictures of each split at most, drawn of all; None for all.
        seed: of all random choices.
    """

    width: int = 192
    height: int = 160
    count: int | None = None
    seed: int = 0

    def check(self) -> None:
        """Raises ConfigError for numbers that make no sense."""
        for name in ("width", "height"):
            if not SMALLEST <= getattr(self, name) <= 4096:
                raise ConfigError(f"{name} {getattr(self, name)}: give {SMALLEST} to 4096 pixels")
        if self.count is not None and self.count < 1:
            raise ConfigError(f"count {self.count}: give 1 or more")


@dataclass
class PastedSplit:
    """A split that was made: how many pictures and classes, and the mean share of a picture that its object covers."""

    name: str
    pictures: int
    classes: int
    share: float
    whole_is_right: float  # the share of pictures whose box has an IoU of 0.5 or more with the whole picture


def make_pasted(pictures: Path, backgrounds: Path | None, output: Path, options: PastedSet) -> list[PastedSplit]:
    """Makes `<output>/{Data,Annotations,ImageSets}/CLS-LOC` of `<pictures>/{train,val}/<class>/*`, whole or not at all.

    Names of files are the official ones, numbered anew. The same data, options and seed make the same pictures.

    Args:
        backgrounds: a folder of pictures, each fifth for validation; None: other pictures of the split, blurred.

    Raises:
        ConfigError: numbers that make no sense.
        DataError: pictures can't be read, or the folder is there already or can't be written.
    """
    options.check()
    train = read_folder(pictures, "train")
    val = read_folder(pictures, "val", train.class_names)
    files = None if backgrounds is None else _background_files(backgrounds)
    if output.exists() or output.is_symlink():
        raise DataError(f"{output}: is there already: name a folder to make")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
        folder.chmod(0o755)
        try:
            splits = [
                _make_split(folder, name, dataset, files, options) for name, dataset in (("train", train), ("val", val))
            ]
            folder.rename(output)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise DataError(f"{output}: can't be written ({error.strerror})") from error
    return splits


def _background_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of backgrounds")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
    if len(files) < 2:
        raise DataError(f"{folder}: holds {len(files)} pictures; backgrounds want two or more, of {sorted(ENDINGS)}")
    return files


def _make_split(
    folder: Path, name: str, dataset: ClassificationDataset, files: list[Path] | None, options: PastedSet
) -> PastedSplit:
    order = np.random.default_rng(derive_seed(options.seed, _SPLITS[name])).permutation(len(dataset))
    order = order[: options.count]
    if files is not None:
        files = [file for i, file in enumerate(files) if (i % _VAL_BACKGROUNDS == 0) == (name == "val")]
    numbers: dict[str, int] = {}
    lines, shares = [], []
    with progress_bar(order.tolist(), unit="picture", description=name) as bar:
        for place, index in enumerate(bar, 1):
            wnid = dataset.class_names[dataset.labels[index]]
            numbers[wnid] = numbers.get(wnid, 0) + 1
            stem = f"{wnid}/{wnid}_{numbers[wnid]}" if name == "train" else f"ILSVRC2012_val_{place:08d}"
            rng = np.random.default_rng(derive_seed(options.seed, _SPLITS[name], int(index)))
            canvas = _background(dataset, files, rng, options)
            box = draw_box(rng, options.width, options.height)
            canvas.paste(dataset.picture(int(index)).resize((box[2] - box[0], box[3] - box[1])), box[:2])
            picture, xml = (folder / kind / "CLS-LOC" / name / stem for kind in ("Data", "Annotations"))
            for path in (picture, xml):
                path.parent.mkdir(parents=True, exist_ok=True)
            canvas.save(picture.with_name(f"{picture.name}.JPEG"), "JPEG", quality=_QUALITY)
            xml.with_name(f"{xml.name}.xml").write_text(_describe(stem, wnid, box, options), encoding="utf-8")
            lines.append(f"{stem} {place}\n")
            shares.append((box[2] - box[0]) * (box[3] - box[1]) / (options.width * options.height))
    image_list = folder / "ImageSets/CLS-LOC" / f"{'train_loc' if name == 'train' else name}.txt"
    image_list.parent.mkdir(parents=True, exist_ok=True)
    image_list.write_text("".join(lines), encoding="utf-8")
    return PastedSplit(name, len(shares), len(numbers), float(np.mean(shares)), float(np.mean(np.array(shares) >= 0.5)))


def draw_box(rng: np.random.Generator, width: int, height: int) -> Box:
    """A random box (x1, y1, x2, y2), x2 and y2 exclusive, inside a picture of that size."""
    area = rng.uniform(*SHARES) * width * height
    ratio = np.exp(rng.uniform(*np.log(RATIOS)))
    w, h = min(width, round(np.sqrt(area * ratio))), min(height, round(np.sqrt(area / ratio)))
    x, y = int(rng.integers(0, width - w, endpoint=True)), int(rng.integers(0, height - h, endpoint=True))
    return x, y, x + w, y + h


def _background(
    dataset: ClassificationDataset, files: list[Path] | None, rng: np.random.Generator, options: PastedSet
) -> Image.Image:
    """A random window of a random background, of the size of a picture: as large as fits, or down to half of that."""
    if files is not None:
        picture = read_image(files[rng.integers(len(files))])
    else:
        picture = dataset.picture(int(rng.integers(len(dataset))))
    zoom = min(picture.width / options.width, picture.height / options.height) * rng.uniform(0.5, 1)
    w, h = options.width * zoom, options.height * zoom
    x, y = rng.uniform(0, picture.width - w), rng.uniform(0, picture.height - h)
    canvas = picture.resize((options.width, options.height), box=(x, y, x + w, y + h))
    return canvas if files is not None else canvas.filter(ImageFilter.GaussianBlur(_BLUR * options.width))


def _describe(stem: str, wnid: str, box: Box, options: PastedSet) -> str:
    """An annotation file in ILSVRC's form: corners count from zero and are inclusive."""
    folder, _, name = stem.rpartition("/")
    x1, y1, x2, y2 = box
    return (
        f"<annotation>\n\t<folder>{escape(folder or 'val')}</folder>\n\t<filename>{escape(name)}</filename>\n"
        "\t<source>\n\t\t<database>pasted</database>\n\t</source>\n"
        f"\t<size>\n\t\t<width>{options.width}</width>\n\t\t<height>{options.height}</height>\n"
        "\t\t<depth>3</depth>\n\t</size>\n\t<segmented>0</segmented>\n"
        f"\t<object>\n\t\t<name>{escape(wnid)}</name>\n\t\t<pose>Unspecified</pose>\n"
        "\t\t<truncated>0</truncated>\n\t\t<difficult>0</difficult>\n"
        f"\t\t<bndbox>\n\t\t\t<xmin>{x1}</xmin>\n\t\t\t<ymin>{y1}</ymin>\n\t\t\t<xmax>{x2 - 1}</xmax>\n"
        f"\t\t\t<ymax>{y2 - 1}</ymax>\n\t\t</bndbox>\n\t</object>\n</annotation>\n"
    )
