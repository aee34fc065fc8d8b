"""A table of the paper beside what was measured: means over seeds, bands, and what the orderings say."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean, stdev
from typing import Any, Literal

from backbones.markdown import format_table
from backbones.reproduce.paper import Claim, Condition, Experiment, Row, Table
from backbones.reproduce.runs import Run

Outcome = Literal["holds", "DOES NOT HOLD", "not run", "not judged"]


@dataclass(frozen=True)
class Measured:
    """A number over the seeds of an experiment.

    Args:
        values: by seed; of finished runs only.
        asked: how many seeds were asked for.
    """

    values: dict[int, float]
    asked: int

    @property
    def mean(self) -> float | None:
        """None where no run has finished."""
        return mean(self.values.values()) if self.values else None

    @property
    def std(self) -> float | None:
        """The sample standard deviation; None of fewer than two."""
        return stdev(self.values.values()) if len(self.values) > 1 else None


@dataclass(frozen=True)
class MeasuredRow:
    """A row with what was measured.

    Args:
        row, experiment: as the declarative file says.
        measured: over the seeds.
        difference: measured less paper's; None where there is none, or the two can't be compared.
        verdict: "inside" or "OUTSIDE" the band, "no verdict" where there is nothing to judge by, or why the row is
            empty.
        runs: those that it is made of.
    """

    row: Row
    experiment: Experiment
    measured: Measured
    difference: float | None
    verdict: str
    runs: list[Run]


@dataclass(frozen=True)
class JudgedClaim:
    """A claim of the paper, whether it holds here, and the numbers that say so."""

    text: str
    outcome: Outcome
    numbers: list[str]


def measure_row(
    row: Row, table: Table, experiment: Experiment, runs: Sequence[Run], *, comparable: bool
) -> MeasuredRow:
    """A row of a table.

    Args:
        row: what the file says.
        table: whose row it is.
        experiment: the row's.
        runs: of it, one a seed.
        comparable: whether data and schedule are the paper's; else there is neither difference nor verdict.
    """
    measured = measure(runs, table.metric)
    difference = None
    if comparable and measured.mean is not None and isinstance(row.paper, float):
        difference = measured.mean - row.paper
    verdict = _verdict(row, measured, runs, comparable)
    return MeasuredRow(row, experiment, measured, difference, verdict, list(runs))


def measure(runs: Sequence[Run], metric: str) -> Measured:
    """A number of the finished ones among runs of different seeds."""
    numbers = {run.seed: run.number(metric) for run in runs}
    return Measured({seed: value for seed, value in numbers.items() if value is not None}, len(runs))


def _verdict(row: Row, measured: Measured, runs: Sequence[Run], comparable: bool) -> str:
    value = measured.mean
    if value is None:
        states = {run.state for run in runs}
        worst = next((state for state in ("broken", "failed", "running", "interrupted") if state in states), None)
        return worst or ("no such number" if "finished" in states else "not run")
    if not comparable:
        return "no verdict"
    if row.bound is not None:
        sign, limit = row.bound
        return "inside" if (value > limit if sign == ">" else value < limit) else "OUTSIDE"
    if row.band is None or not isinstance(row.paper, float):
        return "no verdict"
    # Sums of decimal fractions: 9.25 - 8.75 may exceed 0.5 in its last bit.
    return "inside" if abs(value - row.paper) <= row.band + 1e-9 else "OUTSIDE"


def judge(claim: Claim, number: Callable[[str, str | None], Measured], label: Mapping[str, str]) -> JudgedClaim:
    """Whether a claim holds: all of its conditions.

    Args:
        claim: of the paper.
        number: (experiment, metric, or None for the table's) -> what was measured; its mean counts.
        label: of each experiment.
    """
    outcomes: list[Outcome] = []
    texts = []
    for condition in claim.conditions:
        mine = number(condition.experiment, condition.metric)
        other = condition.other
        limit: float | None
        if isinstance(other, str):
            theirs = number(other, condition.metric)
            limit, against = theirs.mean, f"{label[other]} {_with_seeds(theirs)}"
        else:
            limit, against = other, f"{other:g}"
        outcomes.append(_outcome(condition, mine.mean, limit))
        word = "below" if condition.above is None else "above"
        mine_in_words = " ".join(filter(None, [label[condition.experiment], condition.what, _with_seeds(mine)]))
        texts.append(f"{mine_in_words} {word} {against}")
    for outcome in ("DOES NOT HOLD", "not run", "holds"):  # one condition that fails decides
        if outcome in outcomes:
            return JudgedClaim(claim.text, outcome, texts)
    raise AssertionError("a claim has conditions")


def _outcome(condition: Condition, mine: float | None, theirs: float | None) -> Outcome:
    if mine is None or theirs is None:
        return "not run"
    return "holds" if (mine < theirs if condition.above is None else mine > theirs) else "DOES NOT HOLD"


def format_rows(rows: Sequence[MeasuredRow], unit: str) -> str:
    """The rows as a Markdown table."""
    cells = [["network", "parameters", f"paper {unit}", f"measured {unit}", "seeds", "difference", "verdict"]]
    for measured_row in rows:
        row, parameters, measured = measured_row.row, measured_row.experiment.parameters, measured_row.measured
        count, difference, verdict = len(measured.values), measured_row.difference, measured_row.verdict
        cells.append(
            [
                measured_row.experiment.label,
                "-" if parameters is None else f"{parameters:,}",
                row.paper if isinstance(row.paper, str) else _with_std(row.paper, row.paper_std),
                _with_std(measured.mean, measured.std),
                str(count) if count in (0, measured.asked) else f"{count} of {measured.asked}",
                "-" if difference is None else f"{difference:+.2f}",
                f"{verdict} ±{row.band:g}" if verdict in ("inside", "OUTSIDE") and row.band else verdict,
            ]
        )
    return format_table(cells, texts=1, last=1)


def format_claims(claims: Sequence[JudgedClaim]) -> str:
    """A line for each claim."""
    return "\n".join(f"- **{claim.outcome}**: {claim.text} ({'; '.join(claim.numbers)})" for claim in claims)


def row_as_json(row: MeasuredRow) -> dict[str, Any]:
    """A row with every number behind it, and where its runs lie."""
    said = {"label": row.experiment.label, "parameters": row.experiment.parameters} | asdict(row.row)
    judged = {"difference": row.difference, "verdict": row.verdict}
    measured = {"values": row.measured.values, "mean": row.measured.mean, "std": row.measured.std}
    runs = [
        {"folder": str(run.folder), "seed": run.seed, "state": run.state, "step": run.step}
        | {key: run.record.get(key) for key in ("git_commit", "hardware", "wall_clock_seconds")}
        | {"precision": run.record.get("config", {}).get("precision")}
        for run in row.runs
    ]
    return said | judged | measured | {"seeds": len(row.measured.values), "runs": runs}


def _with_std(value: float | None, std: float | None) -> str:
    return _number(value) if std is None else f"{_number(value)} ± {std:.2f}"


def _with_seeds(measured: Measured) -> str:
    count = len(measured.values)
    return f"{_number(measured.mean)} ({count} seed{'' if count == 1 else 's'})" if count else "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
