"""Rows of the comparison, as a table and as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from backbones.benchmark.measure import ratios, spread


@dataclass(frozen=True)
class Row:
    """Ours beside the usual way.

    Args:
        part: of the benchmark.
        name: what was done, and how.
        unit: of the speeds: more is faster.
        ours, reference: the speed in each round.
        ours_memory, reference_memory: bytes at the peak beyond those that were taken before; None where not known.
        details: further numbers of this row.
        notes: the lines about it below the table.
    """

    part: str
    name: str
    unit: str
    ours: Sequence[float]
    reference: Sequence[float]
    ours_memory: int | None = None
    reference_memory: int | None = None
    details: dict[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def ratio(self) -> float:
        """How many times as fast ours is: the median of the rounds' ratios."""
        return spread(ratios(self.ours, self.reference)).median

    def to_json(self) -> dict[str, Any]:
        """The row with `ours`, `reference` and `ratio` as medians and quartiles, and each round; memory in bytes."""
        spreads = {
            "ours": spread(self.ours),
            "reference": spread(self.reference),
            "ratio": spread(ratios(self.ours, self.reference)),
        }
        return (
            {"part": self.part, "name": self.name}
            | {name: value.median for name, value in spreads.items()}
            | {"unit": self.unit, "rounds": len(self.ours)}
            | {f"{name}_quartiles": [value.lower, value.upper] for name, value in spreads.items()}
            | {"ours_rounds": list(self.ours), "reference_rounds": list(self.reference)}
            | {"ours_memory": self.ours_memory, "reference_memory": self.reference_memory}
            | self.details
        )


@dataclass(frozen=True)
class PartReport:
    """What a part of the benchmark has found.

    Args:
        rows: ours beside the usual way.
        texts: to print below their table.
        numbers: further results, by name, for the JSON file.
        messages: what was left out, and why.
    """

    rows: list[Row]
    texts: list[str] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """All but the texts."""
        return {"rows": [row.to_json() for row in self.rows], **self.numbers, "messages": self.messages}


def merge(reports: Sequence[PartReport]) -> PartReport:
    """The reports of several parts as one."""
    whole = PartReport([])
    for report in reports:
        whole.rows.extend(report.rows)
        whole.texts.extend(report.texts)
        whole.numbers.update(report.numbers)
        whole.messages.extend(report.messages)
    return whole


def format_rows(rows: Sequence[Row]) -> str:
    """A table with a line for each row, and below it their notes."""
    width = max((len(row.name) for row in rows), default=0)
    parts = max((len(row.part) for row in rows), default=0)
    lines = [
        f"{'part':{parts}}  {'name':{width}} {'ours':>10} {'reference':>10} {'ratio':>6} {'quartiles':>11}  "
        f"{'unit':10} {'memory in MB':>15}"
    ]
    for row in rows:
        middle = spread(ratios(row.ours, row.reference))
        quartiles = f"{middle.lower:.2f}-{middle.upper:.2f}"
        memory = f"{_megabytes(row.ours_memory)} / {_megabytes(row.reference_memory)}"
        lines.append(
            f"{row.part:{parts}}  {row.name:{width}} {spread(row.ours).median:>10,.1f} "
            f"{spread(row.reference).median:>10,.1f} {middle.median:>6.2f} {quartiles:>11}  {row.unit:10} {memory:>15}"
        )
    notes = [f"{row.name}: {note}" for row in rows for note in row.notes]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def _megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 2**20:,.0f}"
