"""Checking pictures in class folders, and how the command `check_data` tells what it found in a set of any layout."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backbones.data.checking.class_folders import check_class_folders
from backbones.data.findings import Finding, count_severities, findings_as_json, format_findings
from backbones.engine.outputs import write_json
from backbones.errors import DataError


def check_folders(root: str, splits: list[str], *, min_side: int, workers: int, output: str | None) -> None:
    """Checks `<root>/<split>/<class>/<picture>` and tells what is wrong, as `tell_findings` does.

    Args:
        min_side, workers: see `check_class_folders`.
        output: see `tell_findings`.
    """
    report = check_class_folders(Path(root), splits, min_side=min_side, workers=workers)
    counts = {split: {"classes": c, "pictures": p} for split, (c, p) in report.splits.items()}
    parts = [f"{split} has {p:,} pictures of {c:,} classes" for split, (c, p) in report.splits.items()]
    tell_findings(root, counts, report.findings, summary=f"{root}: {', '.join(parts)}", output=output)


def tell_findings(
    root: str, splits: dict[str, Any], findings: Sequence[Finding], *, summary: str, output: str | None
) -> None:
    """Prints what was found, and writes it to a file.

    Args:
        root: of the data set.
        splits: what each holds, for the file.
        findings: all of them; the first few of each kind are printed.
        summary: what to print before them.
        output: a JSON file, or None.

    Raises:
        DataError: there are errors among the findings.
    """
    if output:
        write_json(Path(output), {"root": root, "splits": splits, **findings_as_json(findings)})
    print(summary)
    if findings:
        print(f"\n{format_findings(findings)}\n")
    severities = count_severities(findings)
    found = ", ".join(f"{count:,} {severity}(s)" for severity, count in severities.items())
    print(found if findings else "nothing is wrong with them")
    if output:
        print(f"written to {output}")
    if severities["error"]:
        raise DataError(f"{root}: {severities['error']:,} error(s) found, see above")
