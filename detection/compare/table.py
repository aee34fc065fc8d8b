"""A comparison as tables: gain and cost of each row beside the paper's numbers, and AP by class."""

from collections.abc import Mapping
from typing import Any

from backbones.markdown import format_table
from backbones.text import printable
from detection.compare.config import ComparisonConfig, RowConfig
from detection.compare.record import Measured, MeasuredRow

MEGA = 1e6


def base_of(config: ComparisonConfig, row: RowConfig) -> str | None:
    """The name of the row that a row's gains are counted from; None for the first."""
    if row.over is not None:
        return row.over
    place = config.rows.index(row)
    return config.rows[place - 1].name if place else None


def gain(config: ComparisonConfig, row: RowConfig, measured: Measured, column: str) -> float | None:
    """How much more a row reaches than the one that it is counted from; None where either has no number."""
    base = base_of(config, row)
    if base not in measured or row.name not in measured:
        return None
    before, now = measured[str(base)].number(column), measured[row.name].number(column)
    return None if before is None or now is None else now - before


def main_table(config: ComparisonConfig, measured: Measured) -> str:
    """A line for each row: of every column the number, the gain, the paper's number; seconds (on a CPU its cores' too,
    which are compared) and memory, beside each how many times those of the first row that was measured."""
    shown = [column for column in config.metric if any(column in row.paper for row in config.rows)]
    header = ["row"]
    for column in config.metric:
        header += [f"{title(column)} %", "gain", *(["paper"] if column in shown else [])]
    on_cpu = any(row.cpu_seconds_per_picture is not None for row in measured.values())
    cells = [[*header, "s / picture", *(["CPU s"] if on_cpu else []), "times", "peak MB", "times"]]
    first = next((measured[row.name] for row in config.rows if row.name in measured), None)
    for row in config.rows:
        now = measured.get(row.name)
        line = [printable(row.name)]
        for column in config.metric:
            line += [_number(now.number(column) if now else None), _number(gain(config, row, measured, column), "+.1f")]
            line += [_number(row.paper.get(column))] if column in shown else []
        cells.append(line + _costs(now, first, on_cpu))
    return format_table(cells, texts=1)


def _costs(row: MeasuredRow | None, first: MeasuredRow | None, on_cpu: bool) -> list[str]:
    if row is None or first is None:
        return ["-"] * (5 if on_cpu else 4)
    memory, least = row.peak_memory, first.peak_memory
    times = row.time / max(first.time, 1e-9)
    more = memory / least if memory is not None and least else None
    megabytes = None if memory is None else memory / MEGA
    seconds = [
        _number(row.seconds_per_picture, ".3g"),
        *([_number(row.cpu_seconds_per_picture, ".3g")] if on_cpu else []),
    ]
    return [*seconds, f"{times:.1f}", _number(megabytes, ",.0f"), _number(more)]


def class_table(config: ComparisonConfig, measured: Measured, family: str) -> str | None:
    """AP of each class in each measured row, by a metric with one number a class; None where there are no numbers."""
    rows = [measured[row.name] for row in config.rows if row.name in measured]
    columns: list[dict[str, Any]] = [(row.results or {}).get(family, {}).get("per_class", {}) for row in rows]
    if not any(columns):
        return None
    header = [f"{title(family)} AP %", *(printable(row.name) for row in rows)]
    classes = next(column for column in columns if column)
    body = [[printable(name), *(_number(column.get(name)) for column in columns)] for name in classes]
    return format_table([header, *body], texts=1)


def notes(config: ComparisonConfig, measured: Measured, files: Mapping[str, str]) -> list[str]:
    """How numbers were taken, which rows are missing and what trains their models, and where detections are that could
    not be scored.

    Args:
        files: folders of detections in a test set whose objects are not published, by row.
    """
    lines = []
    some = next(iter(measured.values()), None)
    if some is not None:
        device, precision = (printable(str(some.dependencies.get(key))) for key in ("device", "precision"))
        lines.append(
            f"{some.pictures:,} pictures of {config.data.test_split}; {device}, {precision}. "
            "Gains are over the row before"
            + "".join(f"; of '{printable(r.name)}' over '{printable(r.over)}'" for r in config.rows if r.over)
            + ". Seconds: the median over pictures, without loading and resizing"
            + ("" if some.cpu_seconds_per_picture is None else "; CPU s: those in which a core was at work for it")
            + ". Memory: weights, and what is needed beside them at the peak"
            + f". Times: those of '{printable(next(r.name for r in config.rows if r.name in measured))}'."
        )
    for row in config.rows:
        if row.name in files:
            lines.append(f"'{printable(row.name)}': not scored here; its detections: {files[row.name]}")
    missing = dict.fromkeys(key for row in config.rows if row.name not in measured for key in row.models)
    for key in missing:
        if key not in config.models:
            lines.append(f"models.{key} is missing; it is trained by: {config.train[key]}")
    return lines


def title(column: str) -> str:
    """coco.AP50 as "COCO AP50"."""
    family, _, number = column.partition(".")
    return f"{family.upper()} {number}".strip()


def _number(value: float | None, form: str = ".1f") -> str:
    return "-" if value is None else format(value, form)
