"""What the splits of a detection set hold, as a table and for a JSON file."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from backbones.markdown import format_table
from backbones.text import printable
from detection.data.annotations import MEDIUM, SMALL
from detection.data.checking.objects import count_classes
from detection.data.checking.scan import SplitScan


def describe_split(scan: SplitScan) -> dict[str, Any]:
    """Counts of a split; objects include difficult ones and crowds. Without annotations only `pictures` is there."""
    counts: dict[str, Any] = {"pictures": len(scan.pictures)}
    if not scan.annotated:
        return counts
    a_picture = np.bincount(scan.objects.images, minlength=len(scan.pictures))
    area = scan.objects.areas
    return counts | {
        "objects": len(scan.objects),
        scan.ignored: int(scan.objects.ignore.sum()),
        "objects_a_picture": [int(a_picture.min()), float(np.median(a_picture)), int(a_picture.max())]
        if len(a_picture)
        else [0, 0.0, 0],
        "small": int((area < SMALL).sum()),
        "medium": int(((area >= SMALL) & (area < MEDIUM)).sum()),
        "large": int((area >= MEDIUM).sum()),
        "classes": count_classes(scan),
    }


def format_splits(scans: Sequence[SplitScan]) -> str:
    """A row for each split, then one for each class with its objects in each split that has any."""
    counts = {printable(scan.name): describe_split(scan) for scan in scans}
    rows = [["split", "pictures", "objects", "classes", scans[0].ignored, "a picture", "small", "medium", "large"]]
    for name, split in counts.items():
        row = [name, f"{split['pictures']:,}"]
        if "objects" in split:
            least, median, most = split["objects_a_picture"]
            classes = sum(count > 0 for count in split["classes"].values())
            row += [f"{split['objects']:,}", f"{classes:,}", f"{split[scans[0].ignored]:,}"]
            row += [f"{least} / {median:g} / {most}", *(f"{split[size]:,}" for size in ("small", "medium", "large"))]
        rows.append(row + [""] * (len(rows[0]) - len(row)))
    lines = [format_table(rows, texts=1, bars=False)]
    lines.append("(a picture: objects, fewest / median / most; small and medium: areas below 32x32 and 96x96 pixels)")
    classes_of = {name: split["classes"] for name, split in counts.items() if split.get("objects")}
    if names := list(dict.fromkeys(name for classes in classes_of.values() for name in classes)):
        rows = [["class", *classes_of]]
        rows += [[printable(c[:40]), *(f"{classes.get(c, 0):,}" for classes in classes_of.values())] for c in names]
        lines += ["", format_table(rows, texts=1, bars=False)]
    return "\n".join(lines)
