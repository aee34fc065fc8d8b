"""What the splits of a detection set hold, as a table and for a JSON file."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from backbones.data.findings import printable
from detection.data.checking.objects import count_classes
from detection.data.checking.scan import SplitScan

SMALL, MEDIUM = 32**2, 96**2  # pixels: areas below these are COCO's small and medium objects


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
    """A row for each split, then one for each class with its objects in each split."""
    width = max(5, *(len(scan.name) for scan in scans))
    ignored = scans[0].ignored
    rows = [
        f"{'split':<{width}} {'pictures':>9} {'objects':>9} {'classes':>8} {ignored:>9} {'a picture':>14} "
        f"{'small':>9} {'medium':>9} {'large':>9}"
    ]
    counts = {printable(scan.name): describe_split(scan) for scan in scans}
    for name, split in counts.items():
        row = f"{name:<{width}} {split['pictures']:>9,}"
        if "objects" in split:
            least, median, most = split["objects_a_picture"]
            row += f" {split['objects']:>9,} {sum(n > 0 for n in split['classes'].values()):>8,} {split[ignored]:>9,}"
            row += f" {f'{least} / {median:g} / {most}':>14}"
            row += "".join(f" {split[size]:>9,}" for size in ("small", "medium", "large"))
        rows.append(row)
    rows.append("(a picture: objects, fewest / median / most; small and medium: areas below 32x32 and 96x96 pixels)")
    with_objects = [name for name in counts if "classes" in counts[name]]
    names = list(dict.fromkeys(c for name in with_objects for c in counts[name]["classes"]))
    if names:
        column = max(5, *(min(len(name), 40) for name in names))
        rows += ["", f"{'class':<{column}}" + "".join(f" {name:>{max(9, len(name))}}" for name in with_objects)]
        for c in names:
            cells = (f" {counts[name]['classes'].get(c, 0):>{max(9, len(name))},}" for name in with_objects)
            rows.append(f"{printable(c[:40]):<{column}}" + "".join(cells))
    return "\n".join(rows)
