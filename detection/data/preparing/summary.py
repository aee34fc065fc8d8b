"""What was prepared, as a table, with what differs from the official sets."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from backbones.data.unpacking import describe_size
from detection.data.checking.scan import SplitScan
from detection.data.preparing.archives import Contents


def count_splits(
    scans: Iterable[SplitScan], official: Mapping[str, Mapping[str, int]]
) -> tuple[list[list[str]], list[str]]:
    """Cells of a table: split, pictures that are listed and that are there, objects, ignored ones; and notes on it.

    Args:
        official: pictures and objects of each split, where the official set says.
    """
    rows, notes = [], []
    for scan in scans:
        missing = [picture for picture in scan.pictures if not picture.is_there]
        counts = {"pictures": len(scan.pictures), "objects": len(scan.objects)}
        objects = [f"{len(scan.objects):,}", f"{scan.objects.ignore.sum():,}"] if scan.annotated else ["-", "-"]
        rows.append([scan.name, f"{len(scan.pictures):,}", f"{len(scan.pictures) - len(missing):,}", *objects])
        notes += differences(scan.name, counts, official.get(scan.name, {}))
        if missing:
            folder = Path(missing[0].path).parent
            notes.append(f"{scan.name}: {len(missing):,} of its pictures are not in {folder}: is an archive missing?")
    return rows, notes


def differences(name: str, found: Mapping[str, int], official: Mapping[str, int]) -> list[str]:
    """A line where a split is not as large as the official one."""
    parts = [f"{official[key]:,} {key}" for key in official if key in found and found[key] != official[key]]
    return [f"{name}: the official set has {' and '.join(parts)}."] if parts else []


def describe_contents(contents: Contents) -> list[str]:
    """Lines about what was written and what was left out."""
    amount = describe_size(sum(contents.files.values()))
    lines = [f"{len(contents.files):,} files ({amount}), of which {contents.written:,} were written now"]
    if contents.foreign:
        some = ", ".join(f"{folder} ({count:,})" for folder, count in contents.foreign.most_common(5))
        lines.append(f"left out: {contents.foreign.total():,} files that are not of the official form, in {some}")
    return lines
