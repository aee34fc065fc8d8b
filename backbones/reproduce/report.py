"""A table as files: Markdown for people, JSON for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from backbones.engine.checkpoint import write_atomically
from backbones.engine.outputs import write_json
from backbones.engine.run_record import SAME_RECIPE
from backbones.reproduce.paper import DataSet, Paper
from backbones.reproduce.requests import SMOKE_STEPS, Scale
from backbones.reproduce.runs import Run
from backbones.reproduce.tables import (
    Measured,
    format_claims,
    format_rows,
    judge,
    measure,
    measure_row,
    row_as_json,
)


@dataclass(frozen=True)
class Circumstances:
    """What the runs of a table share.

    Args:
        name: of the data set in the declarative file.
        data: the data set.
        scale: of the schedule.
        options: further ones of the training command.
    """

    name: str
    data: DataSet
    scale: Scale
    options: Mapping[str, Any]

    @property
    def comparable(self) -> bool:
        """Whether numbers can be held against the paper's: its data, its schedule, its recipe."""
        return not self._departures()

    @property
    def judged(self) -> bool:
        """Whether orderings say something of the paper's: on other data and shorter schedules too, not of a mere trial
        or another recipe."""
        return self.scale != "smoke" and not self._other_options()

    def describe(self) -> str:
        """In words: data set, schedule, options that change the recipe."""
        schedule = "the paper's schedule" if self.scale == 1 else f"schedule shortened to {_words(self.scale)}"
        options = [f"{key} {self.options[key]}" for key in self._other_options()]
        return "; ".join([self.data.title, schedule, *options])

    def claims_heading(self) -> str:
        """Above what the paper shows: how much the outcomes mean."""
        if not self.judged:
            return "What the paper shows (not judged: these runs are not trained as the paper's):"
        shortened = "" if self.scale == 1 else f" (judged on a schedule shortened to {_words(self.scale)})"
        return f"What the paper shows{shortened}:"

    def warning(self) -> str:
        """What the reader must know before comparing; empty where there is nothing."""
        reasons = self._departures()
        if not reasons:
            return ""
        text = f"**NOT COMPARABLE with the paper: {' and '.join(reasons)}**, so bands give no verdict."
        return " ".join(filter(None, [text, self.data.note]))

    def _departures(self) -> list[str]:
        reasons = []
        if self.data.stands_for is not None:
            reasons.append(f"not the paper's data ({self.data.title})")
        if self.scale != 1:
            reasons.append("not the paper's schedule")
        if other := self._other_options():
            reasons.append(f"not the paper's recipe ({', '.join(other)} set)")
        return reasons

    def _other_options(self) -> list[str]:
        return [key for key in self.options if key not in SAME_RECIPE]


def write_table(
    name: str, paper: Paper, runs: Mapping[str, Sequence[Run]], circumstances: Circumstances, output: Path
) -> str:
    """Leaves `<output>/<name>.md` and `.json`.

    Args:
        name: of the table.
        paper: the declarative file.
        runs: by experiment; rows of other experiments are left out.
        circumstances: of the runs.
        output: the folder of results.

    Returns:
        The Markdown to print, where circumstances and warning stand above all tables.
    """
    table = paper.tables[name]
    rows = [
        measure_row(
            row, table, paper.experiments[row.experiment], runs[row.experiment], comparable=circumstances.comparable
        )
        for row in table.rows
        if row.experiment in runs
    ]
    labels = {key: experiment.label for key, experiment in paper.experiments.items()}

    def number(experiment: str, metric: str | None) -> Measured:
        return measure(runs.get(experiment, []), metric or table.metric)

    claims = [judge(claim, number, labels) for claim in table.claims]
    if not circumstances.judged:
        claims = [replace(claim, outcome="not judged") for claim in claims]
    title = f"# {table.title}"
    notes = [f"{row.experiment.label}: {row.row.note}" for row in rows if row.row.note]
    heading = circumstances.claims_heading() if claims else ""
    parts = [format_rows(rows, table.unit), "\n".join(notes), table.note, heading, format_claims(claims)]
    write_json(
        output / f"{name}.json",
        {
            "name": name,
            "title": table.title,
            "metric": table.metric,
            "unit": table.unit,
            "data": circumstances.name,
            "circumstances": circumstances.describe(),
            "scale": circumstances.scale,
            "options": dict(circumstances.options),
            "comparable": circumstances.comparable,
            "rows": [row_as_json(row) for row in rows],
            "claims": [asdict(claim) for claim in claims],
        },
    )
    whole = _paragraphs(title, circumstances.describe(), circumstances.warning(), *parts)
    write_atomically(output / f"{name}.md", lambda path: path.write_text(whole + "\n"))
    return _paragraphs(title, *parts)


def _paragraphs(*texts: str) -> str:
    return "\n\n".join(filter(None, texts))


def _words(scale: Scale) -> str:
    return f"{SMOKE_STEPS} iterations" if scale == "smoke" else f"{100 * scale:.4g} % of its length"
