"""The command `check_data`: lists what is wrong with a data set."""

import os
from collections.abc import Sequence
from pathlib import Path

from backbones.cli import run_command
from backbones.data.checks import check_class_folders
from backbones.data.findings import count_severities, findings_as_json, format_findings
from backbones.engine.run import check_writable, write_json
from backbones.errors import ConfigError, DataError


def check_data(
    root: str,
    splits: list[str] = ["train", "val"],  # noqa: B006 (jsonargparse reads the default)
    min_side: int = 32,
    workers: int = 4,
    output: str | None = None,
) -> None:
    """Lists what is wrong with pictures in class folders, <root>/<split>/<class>/<picture>; reads every picture.

    Finds a wrong layout, pictures that are damaged, mislabelled, there twice or in two splits (byte for byte), tiny, in
    CMYK and more.
    Ends with exit code 0 where it finds nothing or warnings only, and 2 where it finds errors: what training or testing
    would stop at or be misled by. Example: python tools/check_data.py --root imagenet --output report.json

    Args:
        root: the folder of the splits.
        splits: folders in it; the first is the one that is trained on.
        min_side: pictures with a side shorter than this are called tiny, in pixels.
        workers: processes that read pictures.
        output: a JSON file for all findings (the first few of each kind are printed).
    """
    if min_side < 0 or workers < 0:
        raise ConfigError(f"min_side {min_side}, workers {workers}: give 0 or more")
    if not splits or len(set(splits)) < len(splits):
        raise ConfigError(f"splits {' '.join(splits)}: name one or more, each once")
    if not Path(root).is_dir():
        raise DataError(f"{root}: no such folder")
    if output:
        check_writable(Path(output))
    workers = min(workers, os.cpu_count() or 1)
    report = check_class_folders(Path(root), splits, min_side=min_side, workers=workers)
    counts = {split: {"classes": c, "pictures": p} for split, (c, p) in report.splits.items()}
    if output:
        write_json(Path(output), {"root": root, "splits": counts, **findings_as_json(report.findings)})
    parts = [f"{split} has {p:,} pictures of {c:,} classes" for split, (c, p) in report.splits.items()]
    print(f"{root}: {', '.join(parts)}")
    if report.findings:
        print(f"\n{format_findings(report.findings)}\n")
    severities = count_severities(report.findings)
    found = ", ".join(f"{count:,} {severity}(s)" for severity, count in severities.items())
    print(found if report.findings else "nothing is wrong with them")
    if output:
        print(f"written to {output}")
    if severities["error"]:
        raise DataError(f"{root}: {severities['error']:,} error(s) found, see above")


def main(argv: Sequence[str] | None = None) -> None:
    """The command `check_data`."""
    run_command(check_data, argv=argv)


if __name__ == "__main__":
    main()
