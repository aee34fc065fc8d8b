"""A table as files: Markdown for people, JSON for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backbones.engine.checkpoint import write_atomically
from backbones.engine.run import write_json
from backbones.reproduce.paper import DataSet, Paper
from backbones.reproduce.requests import SMOKE_STEPS, Scale
from backbones.reproduce.runs import Run
from backbones.reproduce.tables import (
    format_claims,
    format_rows,
    judge,
    measure,
    measure_row,
    row_as_json,
)

# Options that leave the recipe as it is: how it is computed, and how often something is written.
_SAME_RECIPE = (
    "device",
    "precision",
    "deterministic",
    "data.resident",
    "model.recompute",
    "train.capture",
    "train.compile",
    "train.workers",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.evaluate_every",
    "train.log_every",
    "train.log_gradient_norm",
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

    def describe(self) -> str:
        """In words: data set, schedule, options."""
        schedule = "the paper's schedule" if self.scale == 1 else f"schedule shortened to {_words(self.scale)}"
        options = [f"{key} {value}" for key, value in self.options.items()]
        return "; ".join([self.data.title, schedule, *options])

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
        if other := [key for key in self.options if key not in _SAME_RECIPE]:
            reasons.append(f"not the paper's recipe ({', '.join(other)} set)")
        return reasons


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
        The Markdown.
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

    def number(experiment: str, metric: str | None) -> float | None:
        return measure(runs.get(experiment, []), metric or table.metric).mean

    claims = [judge(claim, number, labels) for claim in table.claims]
    parts = [f"# {table.title}", circumstances.describe(), circumstances.warning(), format_rows(rows, table.unit)]
    notes = [f"{row.experiment.label}: {row.row.note}" for row in rows if row.row.note]
    parts += ["\n".join(notes), table.note, "What the paper shows:" if claims else "", format_claims(claims)]
    text = "\n\n".join(filter(None, parts))
    write_json(
        output / f"{name}.json",
        {
            "name": name,
            "title": table.title,
            "metric": table.metric,
            "unit": table.unit,
            "data": circumstances.name,
            "scale": circumstances.scale,
            "options": dict(circumstances.options),
            "comparable": circumstances.comparable,
            "rows": [row_as_json(row) for row in rows],
            "claims": [asdict(claim) for claim in claims],
        },
    )
    write_atomically(output / f"{name}.md", lambda path: path.write_text(text + "\n"))
    return text


def _words(scale: Scale) -> str:
    return f"{SMOKE_STEPS} iterations" if scale == "smoke" else f"{100 * scale:.4g} % of its length"
