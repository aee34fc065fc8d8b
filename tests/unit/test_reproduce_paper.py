"""The declarative file: the paper's numbers, typed here a second time, and what is refused."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from backbones import get_model
from backbones.errors import ConfigError, UserError
from backbones.reproduce import paper as module
from backbones.reproduce.paper import PAPER_FILE, Row, read_paper
from backbones.reproduce.requests import request

# Section 3 of the paper's facts: parameters and test errors of Table 6.
TABLE_6 = {
    "ResNet-20": (269_722, 8.75),
    "ResNet-32": (464_154, 7.51),
    "ResNet-44": (658_586, 7.17),
    "ResNet-56": (853_018, 6.97),
    "ResNet-110": (1_727_962, 6.61),
    "ResNet-1202": (19_421_274, 7.93),
    "plain-20": (269_722, None),
    "plain-32": (464_154, None),
    "plain-44": (658_586, None),
    "plain-56": (853_018, None),
    "plain-110": (1_727_962, "> 60"),
}


def test_table_6_is_the_papers() -> None:
    paper = read_paper()
    rows = paper.tables["table6"].rows
    found = {
        paper.experiments[row.experiment].label: (paper.experiments[row.experiment].parameters, row) for row in rows
    }
    assert {label: (parameters, row.paper) for label, (parameters, row) in found.items()} == TABLE_6
    _, deep = found["ResNet-110"]
    assert (deep.paper_std, "6.43" in deep.note) == (0.16, True)
    assert paper.tables["table6"].metric == "center.top1_error"


def test_figures_show_what_the_papers_do() -> None:
    paper = read_paper()
    fig6, fig7 = paper.figures["fig6"].curves, paper.figures["fig7"].responses
    assert fig6 is not None
    assert fig7 is not None
    assert [panel.experiments for panel in fig6.panels] == [
        ["plain20", "plain32", "plain44", "plain56"],
        ["resnet20", "resnet32", "resnet44", "resnet56", "resnet110"],
        ["resnet110", "resnet1202"],
    ]
    assert fig6.error_range == [0, 20]
    assert sorted(fig7.experiments) == ["plain20", "plain56", "resnet110", "resnet20", "resnet56"]


def test_a_number_of_the_paper_is_the_same_in_all_tables_and_config_files() -> None:
    paper = read_paper()
    numbers: dict[str, set[Any]] = {}
    for table in paper.tables.values():
        for row in table.rows:
            if isinstance(row.paper, float):
                numbers.setdefault(row.experiment, set()).add((row.paper, row.band))
    for name, experiment in paper.experiments.items():
        config = yaml.safe_load((PAPER_FILE.parent / experiment.config).read_text())
        for item in config.get("expected", []):
            if isinstance(item["value"], float) and name in numbers:
                numbers[name].add((item["value"], item["tolerance"]))
    assert numbers
    assert all(len(found) == 1 for found in numbers.values()), numbers


def test_networks_have_the_parameters_that_the_file_says() -> None:
    paper = read_paper()
    for experiment in paper.experiments.values():
        if experiment.parameters is None or experiment.label == "ResNet-1202":  # which takes seconds to build
            continue
        model = yaml.safe_load((PAPER_FILE.parent / experiment.config).read_text())["model"]
        network = get_model(model["name"], num_classes=10, **model.get("options", {}))
        assert sum(p.numel() for p in network.parameters()) == experiment.parameters


def test_runs_of_experiments_are_named_alike_nowhere() -> None:
    paper = read_paper()
    runs = [(experiment.config, str(experiment.options)) for experiment in paper.experiments.values()]
    labels = [experiment.label for experiment in paper.experiments.values()]
    assert len({*runs}) == len(runs)
    assert len({*labels}) == len(labels)
    used = {experiment for name in paper.names() for experiment in paper.experiments_of(name)}
    assert used == paper.experiments.keys()


def test_claims_point_the_way_that_the_paper_does() -> None:
    """Sections 3.2 and 4.2: which of two errors is the lower one."""
    found = {
        (c.experiment, "<" if c.above is None else ">", c.other, c.metric)
        for table in read_paper().tables.values()
        for claim in table.claims
        for c in claim.conditions
    }
    assert found == {
        ("resnet56", "<", "resnet20", None),
        ("resnet110", "<", "resnet20", None),
        ("plain56", ">", "plain20", None),
        ("resnet20", "<", "plain20", None),
        ("resnet56", "<", "plain56", None),
        ("resnet1202", "<", 0.1, "curve.train.top1_error"),
        ("resnet1202", ">", "resnet110", None),
        ("resnet20_1layer", ">", "resnet20", None),
        ("resnet56_1layer", ">", "resnet56", None),
        ("resnet1202_dropout", "<", "resnet1202", None),
    }


def test_only_the_published_cifar_10_passes_for_it() -> None:
    data = read_paper().data
    assert data["cifar10"].options == {"data.official": True}
    assert data["cifar10"].stands_for is None
    assert data["cifar10-jpeg"].stands_for == "cifar10"


@pytest.mark.parametrize(
    ("name", "warmup"),
    [
        ("resnet110", ("error", 0, 64000)),
        ("resnet110_fixed_warmup", ("constant", 400, 64000)),
        ("resnet110_no_warmup", ("linear", 0, 64000)),
        ("resnet110_early_error_warmup", ("error", 0, 2000)),
        ("resnet110_early_fixed_warmup", ("constant", 400, 2000)),
        ("resnet110_early_no_warmup", ("linear", 0, 2000)),
    ],
)
def test_warmups_are_what_they_are_called(name: str, warmup: tuple[str, int, int]) -> None:
    """400 steps are how long the paper's took (4.2); its rate is a tenth."""
    paper = read_paper()
    experiment = paper.experiments[name]
    config = request(experiment, PAPER_FILE.parent, paper.data[experiment.data], scale=1.0, options={}).config
    assert (config["schedule.warmup"], config["schedule.warmup_steps"], config["train.steps"]) == warmup
    assert (config["model.name"], config["schedule.warmup_factor"]) == ("cifar_resnet110", 0.1)


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A correct file, and what is in it."""
    (tmp_path / "a.yaml").write_text("{}")
    value = {
        "machine": {"name": "G", "price": 1, "cpu_factor": 2.5},
        "data": {"d": {"title": "D"}},
        "experiments": {"a": {"label": "A", "config": "a.yaml", "data": "d", "gpu_hours": 1}},
        "tables": {
            "t": {
                "title": "T",
                "metric": "x.y",
                "unit": "%",
                "rows": [{"experiment": "a", "paper": 3, "band": 1}],
                "claims": [{"text": "c", "conditions": [{"experiment": "a", "below": 3}]}],
            }
        },
        "figures": {"f": {"title": "F", "responses": {"experiments": ["a"]}}},
    }
    return tmp_path / "paper.yaml", value


def test_whole_numbers_are_numbers(small: tuple[Path, dict[str, Any]]) -> None:
    path, value = small
    path.write_text(yaml.safe_dump(value))
    paper = read_paper(str(path))
    row = paper.tables["t"].rows[0]
    assert (type(row.paper), type(row.band), row.paper) == (float, float, 3.0)
    assert paper.names() == ["t", "f"]


WRONG = [
    ("tables.t.rows.0.experiment", "b", r"tables\.t\.rows\[0\]\.experiment: 'b' is unknown \(known: a\)"),
    ("tables.t.rows.0.bnad", 1, r"tables\.t\.rows\[0\]: unknown key 'bnad'"),
    ("tables.t.rows.0.band", "wide", r"tables\.t\.rows\[0\]\.band: must be a number or null, not 'wide'"),
    ("tables.t.rows.0.band", -1, r"tables\.t\.rows\[0\]\.band"),
    ("tables.t.rows.0.paper", "> 60", r"tables\.t\.rows\[0\]\.band: belongs to a paper's number"),
    ("tables.t.rows.0.paper", True, r"rows\[0\]\.paper: must be a number or a text or null, not 'True'"),
    ("tables.t.rows", [], r"tables\.t\.rows: is empty"),
    ("tables.t.rows", {}, r"tables\.t\.rows: must be a list"),
    ("tables.t.claims.0.conditions.0.above", "a", r"conditions\[0\]: give one of below and above"),
    ("tables.t.claims.0.conditions.0.below", "z", r"conditions\[0\]: 'z' is unknown"),
    ("tables.t.claims.0.conditions", [], r"claims\[0\]\.conditions: is empty"),
    ("experiments.a.config", "b.yaml", r"experiments\.a\.config: .*b\.yaml: no such file"),
    ("experiments.a.data", "e", r"experiments\.a\.data: 'e' is unknown"),
    ("experiments.a.trainer", "magic", r"experiments\.a\.trainer: 'magic' is unknown \(known: pretrain"),
    ("experiments.a.gpu_hours", 0, r"experiments\.a\.gpu_hours"),
    ("experiments.a", None, r"experiments\.a: must be names with values, not 'None'"),
    ("experiments", {1: {}}, r"experiments: must be names with values"),
    ("data.d.stands_for", "e", r"data\.d\.stands_for: 'e' is unknown"),
    ("figures.f.responses.experiments", ["b"], r"figures\.f: 'b' is unknown"),
    ("figures.f.responses.experiments", [], r"figures\.f: shows no experiment"),
    ("figures.f.responses", None, r"figures\.f: give one of curves, responses and beginning"),
    ("figures.t", {"title": "F", "responses": {"experiments": ["a"]}}, r"figures\.t: its numbers would be"),
    ("figures.all", {"title": "F", "responses": {"experiments": ["a"]}}, "'all' can't be the name"),
    ("machine", {"name": "G"}, r"machine: price is missing"),
]


@pytest.mark.parametrize(("key", "new", "message"), WRONG)
def test_what_is_wrong_is_named(small: tuple[Path, dict[str, Any]], key: str, new: Any, message: str) -> None:
    path, value = small
    *way, last = key.split(".")
    inner: Any = value
    for step in way:
        inner = inner[int(step) if step.isdecimal() else step]
    inner[last] = new
    path.write_text(yaml.safe_dump(value))
    with pytest.raises(ConfigError, match=message) as error:
        read_paper(str(path))
    assert str(error.value).startswith(f"{path}: ")
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    "text", ["", "[]", "a: [", "!!python/object/apply:os.system ['touch hacked']", "\x00", "[" * 1000]
)
def test_no_such_file_of_ours(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "paper.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        read_paper(str(path))
    assert not (tmp_path / "hacked").exists()


def test_outside_a_checkout_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAPER_FILE", tmp_path / "paper.yaml")
    with pytest.raises(UserError, match=r"runs from a checkout of the project, or with --paper FILE"):
        read_paper()
    with pytest.raises(ConfigError, match=r"other\.yaml: no such file"):
        read_paper(str(tmp_path / "other.yaml"))


def test_bounds_in_words() -> None:
    row = Row("a", "> 60")
    assert row.bound == (">", 60.0)
    assert replace(row, paper="<0.1").bound == ("<", 0.1)
    assert replace(row, paper="similar").bound is None
    assert replace(row, paper=60.0).bound is None
