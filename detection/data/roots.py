"""Where a data set of a known layout lies, if not in the folder that was named: a little above or below it."""

from pathlib import Path

from backbones.data.glance import folders_below


def voc_root_near(root: Path) -> Path | None:
    """The nearest VOC year folder or VOCdevkit folder, `root` itself if it is one; None if there is none."""
    for folder in (root, *root.absolute().parents[:3]):
        if _is_year(folder):
            return folder
    return next((folder.parent for folder in folders_below(root, depth=3) if _is_year(folder)), None)


def coco_root_near(root: Path) -> Path | None:
    """The nearest folder with annotations of COCO's layout, `root` itself if it has some; None if there is none."""
    folders = (root, *root.absolute().parents[:2], *folders_below(root, depth=2))
    return next((folder for folder in folders if any(folder.glob("annotations/instances_*.json"))), None)


def instead(near: Path | None, root: Path) -> str:
    """The end of a message about `root`, where the data set was found elsewhere."""
    return "" if near in (None, root) else f"; {near} is of this layout: name that"


def _is_year(folder: Path) -> bool:
    return (folder / "ImageSets" / "Main").is_dir()
