"""The command `compare_detectors`: what box refinement, context, scales and ensembles gain, and what they cost."""

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backbones.analysis.figures import save_figure
from backbones.cli import run_command
from backbones.engine.acceleration import set_determinism
from backbones.engine.checkpoint import write_atomically
from backbones.engine.distributed import World, join_world, wait_for_all
from backbones.engine.outputs import check_writable, write_json
from backbones.errors import RunFolderError
from backbones.text import printable
from detection.compare.config import ComparisonConfig, RowConfig, check_comparison, check_models, families
from detection.compare.figure import draw_comparison
from detection.compare.measure import Models, find_and_measure
from detection.compare.record import (
    FILE,
    Measured,
    MeasuredRow,
    check_same_row,
    circumstances,
    dependencies,
    provenance,
    read_rows,
)
from detection.compare.table import base_of, class_table, gain, main_table, notes
from detection.data.annotations import DetectionDataset
from detection.evaluate.evaluate import evaluate_detections
from detection.evaluate.files import results_files, write_results
from detection.test import read_test_set
from detection.weights import load_detectors


def compare(config: ComparisonConfig) -> None:
    """Measures all rows that are not measured yet.

    Raises:
        UserError: configuration, models, data or output can't be used.
    """
    if not config.output:
        raise RunFolderError("--output is missing: name a folder for the comparison")
    check_comparison(config)
    folder = Path(config.output)
    digests = check_models(config)
    with join_world(config.device) as world:
        set_determinism(False, one_size=False)
        loaded = load_detectors(list(config.models.values()))
        models = dict(zip(config.models, loaded, strict=True))
        dataset = read_test_set(config.data, loaded[0][1])
        if not dataset.annotated:  # can its files be called as they have to be?
            results_files(folder, str(config.data.test_split), dataset.annotations.class_names)
        check_writable(folder / FILE)
        shared = circumstances(config, dataset, world)
        measured = {} if config.overwrite else read_rows(folder, [row.name for row in config.rows])
        to_measure = []
        for row in config.rows:
            if not set(row.models) <= digests.keys():
                continue
            now = dependencies(row, shared, digests)
            if row.name in measured and not _has_lost_files(config, measured[row.name], row):
                check_same_row(folder, measured[row.name], now)
            else:
                to_measure.append((row, now))
        wait_for_all()  # until all have read what the main process is about to write
        for row, now in to_measure:
            _say(world, f"{printable(row.name)} ({len(measured) + 1} of {len(config.rows)})")
            chosen = [models[key] for key in row.models]
            measured[row.name] = _measure(config, row, now, chosen, dataset, world)
            if world.is_main:
                _publish(config, measured, folder)
        if world.is_main:
            print(_publish(config, measured, folder))
            _publish_figure(config, measured, folder / "comparison.png")
            print(f"\nwritten to {folder}")


def _measure(
    config: ComparisonConfig,
    row: RowConfig,
    now: dict[str, Any],
    models: Models,
    dataset: DetectionDataset,
    world: World,
) -> MeasuredRow:
    """Measures a row; of a test set whose objects are not published the main process writes files for the server."""
    found, cost = find_and_measure(
        models, row.inference, dataset, world=world, precision=config.precision, workers=config.workers
    )
    results = None
    if dataset.annotated:
        results = evaluate_detections(dataset.annotations, found, families(config.metric))
    elif world.is_main:
        write_results(_files_folder(config, row), str(config.data.test_split), dataset.annotations, found)
    return MeasuredRow(
        name=row.name,
        dependencies=now,
        provenance=provenance(),
        results=results,
        pictures=len(dataset),
        seconds_per_picture=cost.seconds,
        cpu_seconds_per_picture=cost.cpu_seconds,
        peak_memory=cost.memory,
    )


def _files_folder(config: ComparisonConfig, row: RowConfig) -> Path:
    words = re.sub(r"[^a-z0-9]+", "_", row.name.lower()).strip("_")
    return Path(str(config.output)) / f"{config.rows.index(row) + 1}_{words}".rstrip("_")


def _publish(config: ComparisonConfig, measured: Measured, folder: Path) -> str:
    """Writes record and table; returns the table with its notes."""
    rows = []
    for row in config.rows:
        if row.name in measured:
            gains = {column: gain(config, row, measured, column) for column in config.metric}
            rows.append(
                {
                    **asdict(measured[row.name]),
                    "models": row.models,
                    "paper": row.paper,
                    "over": base_of(config, row),
                    "gain": gains,
                }
            )
    write_json(folder / FILE, {"title": config.title, "metric": config.metric, "rows": rows})
    files = {row.name: str(_files_folder(config, row)) for row in config.rows if _is_for_the_server(measured, row)}
    tables = [main_table(config, measured)]
    by_class = [family for family in families(config.metric) if family != "coco"]  # COCO has several numbers a class
    tables += [table for family in by_class if (table := class_table(config, measured, family))]
    text = "\n\n".join([*tables, *notes(config, measured, files)])
    page = f"# {printable(config.title)}\n\n{text}\n"
    try:
        write_atomically(folder / "table.md", lambda temporary: temporary.write_text(page, encoding="utf-8"))
    except OSError as error:
        raise RunFolderError(f"{folder}: can't be written ({error.strerror})") from error
    return text


def _publish_figure(config: ComparisonConfig, measured: Measured, path: Path) -> None:
    """Writes the figure; where there are no numbers, none of an earlier comparison stays."""
    figure = draw_comparison(config, measured)
    if figure is None:
        path.unlink(missing_ok=True)
    else:
        save_figure(figure, path)


def _is_for_the_server(measured: Measured, row: RowConfig) -> bool:
    return row.name in measured and measured[row.name].results is None


def _has_lost_files(config: ComparisonConfig, measured: MeasuredRow, row: RowConfig) -> bool:
    """Whether the detections of a row that could not be scored are gone."""
    return measured.results is None and not (_files_folder(config, row) / "detections.json").exists()


def _say(world: World, text: str) -> None:
    if world.is_main:
        print(text, flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """The command `compare_detectors`."""
    run_command(ComparisonConfig, compare, argv=argv)


if __name__ == "__main__":
    main()
