"""The declarative file, `configs/paper.yaml`: tables and figures, the runs that they need, and what the paper says."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backbones.errors import ConfigError, UserError
from backbones.reproduce.trainers import TRAINERS
from backbones.reproduce.typed import read_yaml

PAPER_FILE = Path(__file__).parent.parent.parent / "configs" / "paper.yaml"
ALL = "all"
_BOUND = re.compile(r"([<>])\s*(\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class Machine:
    """What time and cost are estimated for.

    Args:
        name: of one GPU.
        price: of an hour of it, in US dollars.
        cpu_factor: how many times as long the cores of a small machine without a GPU take.
    """

    name: str
    price: float
    cpu_factor: float


@dataclass(frozen=True)
class DataSet:
    """A data set that experiments can run on.

    Args:
        title: what to call it.
        stands_for: the paper's data set that it takes the place of; null for the paper's own.
        note: what is to be known of numbers measured on it.
        needs_root: whether it lies in a folder.
        options: of the training command, by dotted key.
    """

    title: str
    stands_for: str | None = None
    note: str = ""
    needs_root: bool = True
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """A network and how it is trained; one run for each seed.

    Args:
        label: what to call it in tables and figures.
        config: the file, relative to the folder of the declarative file.
        data: the paper's data set.
        gpu_hours: estimated for the whole schedule.
        trainer: the training command.
        parameters: of the network.
        options: of the training command by dotted key, where they differ from the config file's.
    """

    label: str
    config: str
    data: str
    gpu_hours: float
    trainer: str = "pretrain"
    parameters: int | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Args:
        experiment: whose runs are measured.
        paper: the paper's number; as a text what it says instead ("> 60" is checked); null where it says nothing.
        band: how far from the paper's number still counts as reproduced.
        paper_std: the paper's standard deviation over its runs.
        note: what else the paper says.
    """

    experiment: str
    paper: float | str | None = None
    band: float | None = None
    paper_std: float | None = None
    note: str = ""

    @property
    def bound(self) -> tuple[str, float] | None:
        """("<" or ">", number) where the paper's number is such a text."""
        match = _BOUND.fullmatch(self.paper.strip()) if isinstance(self.paper, str) else None
        return (match[1], float(match[2])) if match else None


@dataclass(frozen=True)
class Condition:
    """An experiment's number is below or above another's, or a given one.

    Args:
        experiment: whose number.
        below: a number, or the experiment with the larger one.
        above: likewise the smaller one.
        metric: by default the table's.
        what: that metric in words.
    """

    experiment: str
    below: str | float | None = None
    above: str | float | None = None
    metric: str | None = None
    what: str = ""

    @property
    def other(self) -> str | float:
        """What the number is compared with."""
        other = self.below if self.above is None else self.above
        assert other is not None  # checked when the file is read
        return other


@dataclass(frozen=True)
class Claim:
    """Something that the paper shows by an ordering, and that can be judged on other data too."""

    text: str
    conditions: list[Condition]


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        title: the heading.
        metric: where a run's number is in its results, with dots (center.top1_error); or after "curve." in the last
            line of its training curve (curve.train.top1_error).
        unit: of the numbers.
        rows: of experiments.
        claims: what the paper concludes.
        note: what is printed below.
    """

    title: str
    metric: str
    unit: str
    rows: list[Row]
    claims: list[Claim] = field(default_factory=list)
    note: str = ""

    def experiments(self) -> list[str]:
        """Those of the rows, in their order."""
        return list(dict.fromkeys(row.experiment for row in self.rows))


@dataclass(frozen=True)
class Panel:
    """A part of a figure, with the runs that it shows."""

    title: str
    experiments: list[str]


@dataclass(frozen=True)
class Curves:
    """Training and test errors over the iterations, as Fig. 6; `error_range` is that of the paper's axis."""

    panels: list[Panel]
    error_range: list[float]


@dataclass(frozen=True)
class Responses:
    """Standard deviations of layer responses over so many pictures, as Fig. 7."""

    experiments: list[str]
    pictures: int = 1000


@dataclass(frozen=True)
class Beginning:
    """Logged numbers over the first steps; `numbers` are their names in metrics.jsonl with the titles of their axes."""

    experiments: list[str]
    steps: int
    numbers: dict[str, str]


@dataclass(frozen=True)
class Figure:
    """A figure: one of its kinds."""

    title: str
    curves: Curves | None = None
    responses: Responses | None = None
    beginning: Beginning | None = None

    def experiments(self) -> list[str]:
        """Those that it shows."""
        shown = [panel.experiments for panel in self.curves.panels] if self.curves else []
        shown += [kind.experiments for kind in (self.responses, self.beginning) if kind]
        return list(dict.fromkeys(name for names in shown for name in names))


@dataclass(frozen=True)
class Paper:
    """The whole file. A table and a figure of one name are made together."""

    machine: Machine
    data: dict[str, DataSet]
    experiments: dict[str, Experiment]
    tables: dict[str, Table]
    figures: dict[str, Figure]

    def names(self) -> list[str]:
        """Of tables and figures."""
        return list(dict.fromkeys([*self.tables, *self.figures]))

    def experiments_of(self, name: str) -> list[str]:
        """Those that a table or figure needs."""
        parts: Iterable[Table | Figure] = [part[name] for part in (self.tables, self.figures) if name in part]
        return list(dict.fromkeys(experiment for part in parts for experiment in part.experiments()))


def read_paper(path: str | None = None) -> Paper:
    """Reads and checks the declarative file, by default that of the checkout.

    Raises:
        UserError: it is not there, or something in it is wrong.
    """
    file = Path(path) if path else PAPER_FILE
    if not path and not file.is_file():
        raise UserError(f"{file}: no such file: reproduce runs from a checkout of the project, or with --paper FILE")
    paper = read_yaml(file, Paper)
    try:
        _check(paper, file.parent)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None
    return paper


def _check(paper: Paper, folder: Path) -> None:
    for name, data in paper.data.items():
        if data.stands_for is not None:
            _known(data.stands_for, paper.data, f"data.{name}.stands_for")
    for name, experiment in paper.experiments.items():
        place = f"experiments.{name}"
        _known(experiment.data, paper.data, f"{place}.data")
        _known(experiment.trainer, TRAINERS, f"{place}.trainer")
        if not (folder / experiment.config).is_file():
            raise ConfigError(f"{place}.config: {folder / experiment.config}: no such file")
        if not experiment.gpu_hours > 0:
            raise ConfigError(f"{place}.gpu_hours {experiment.gpu_hours}: give a number above 0")
    for name, table in paper.tables.items():
        _check_table(table, paper, f"tables.{name}")
    for name, figure in paper.figures.items():
        _check_figure(figure, paper, f"figures.{name}")
        if figure.responses and name in paper.tables:
            raise ConfigError(f"figures.{name}: its numbers would be written over those of the table of that name")
    if ALL in paper.names():
        raise ConfigError(f"'{ALL}' can't be the name of a table or figure")


def _check_table(table: Table, paper: Paper, place: str) -> None:
    if not table.rows:
        raise ConfigError(f"{place}.rows: is empty")
    for number, row in enumerate(table.rows):
        where = f"{place}.rows[{number}]"
        _known(row.experiment, paper.experiments, f"{where}.experiment")
        if row.band is not None and not (isinstance(row.paper, float) and row.band >= 0):
            raise ConfigError(f"{where}.band: belongs to a paper's number, and is 0 or more")
    for number, claim in enumerate(table.claims):
        if not claim.conditions:
            raise ConfigError(f"{place}.claims[{number}].conditions: is empty")
        for part, condition in enumerate(claim.conditions):
            where = f"{place}.claims[{number}].conditions[{part}]"
            if (condition.below is None) == (condition.above is None):
                raise ConfigError(f"{where}: give one of below and above")
            for experiment in (condition.experiment, condition.other):
                if isinstance(experiment, str):
                    _known(experiment, paper.experiments, where)


def _check_figure(figure: Figure, paper: Paper, place: str) -> None:
    if sum(kind is not None for kind in (figure.curves, figure.responses, figure.beginning)) != 1:
        raise ConfigError(f"{place}: give one of curves, responses and beginning")
    for name in figure.experiments():
        _known(name, paper.experiments, place)
    if figure.curves and len(figure.curves.error_range) != 2:
        raise ConfigError(f"{place}.curves.error_range: give the lowest and the highest error")
    if not figure.experiments():
        raise ConfigError(f"{place}: shows no experiment")


def _known(name: str, names: Iterable[str], place: str) -> None:
    if name not in names:
        raise ConfigError(f"{place}: {name!r} is unknown (known: {', '.join(names)})")
