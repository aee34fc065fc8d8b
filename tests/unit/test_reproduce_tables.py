"""Rows, verdicts and claims, against `statistics` and by hand."""

import statistics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbones.markdown import format_table
from backbones.reproduce.paper import Claim, Condition, DataSet, Experiment, Row, Table
from backbones.reproduce.report import Circumstances
from backbones.reproduce.runs import Run
from backbones.reproduce.tables import (
    Measured,
    MeasuredRow,
    format_claims,
    format_rows,
    judge,
    measure_row,
    row_as_json,
)

TABLE = Table("T", "center.top1_error", "%", [])
EXPERIMENT = Experiment("ResNet-20", "a.yaml", "cifar10", 1.0, parameters=269722)


def run(error: Any, seed: int = 0, state: Any = "finished") -> Run:
    return Run(
        "resnet20",
        seed,
        Path(f"runs/resnet20-seed{seed}"),
        state,
        record={"results": {"center": {"top1_error": error}}},
    )


def row(*errors: Any, paper: Any = 8.75, band: float | None = 0.5, comparable: bool = True) -> MeasuredRow:
    runs = [run(error, seed) for seed, error in enumerate(errors)]
    return measure_row(Row("resnet20", paper, band), TABLE, EXPERIMENT, runs, comparable=comparable)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=6))
def test_mean_and_deviation_over_seeds(errors: list[float]) -> None:
    found = row(*errors)
    assert found.measured.mean == pytest.approx(statistics.fmean(errors), abs=1e-9)
    assert found.difference == pytest.approx(statistics.fmean(errors) - 8.75, abs=1e-9)
    if len(errors) == 1:
        assert found.measured.std is None
    else:  # of a sample: divided by one less than their number
        mean = sum(errors) / len(errors)
        expected = (sum((error - mean) ** 2 for error in errors) / (len(errors) - 1)) ** 0.5
        assert found.measured.std == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("errors", "options", "verdict"),
    [
        ([8.75], {}, "inside"),
        ([9.25], {}, "inside"),  # the edge belongs to the band
        ([8.25], {}, "inside"),
        ([9.26], {}, "OUTSIDE"),
        ([8.24], {}, "OUTSIDE"),
        ([8.0, 9.5], {}, "inside"),  # it is the mean that counts
        ([8.75], {"comparable": False}, "no verdict"),
        ([8.75], {"band": None}, "no verdict"),
        ([8.75], {"paper": None, "band": None}, "no verdict"),
        ([8.75], {"paper": "similar", "band": None}, "no verdict"),
        ([60.1], {"paper": "> 60", "band": None}, "inside"),
        ([60.0], {"paper": "> 60", "band": None}, "OUTSIDE"),
        ([0.05], {"paper": "< 0.1", "band": None}, "inside"),
        ([60.1], {"paper": "> 60", "band": None, "comparable": False}, "no verdict"),
        ([None], {}, "no such number"),
        ([float("nan")], {}, "no such number"),
    ],
)
def test_verdicts(errors: list[Any], options: dict[str, Any], verdict: str) -> None:
    assert row(*errors, **options).verdict == verdict


def test_rows_without_numbers_say_why() -> None:
    def verdict(*states: Any) -> str:
        runs = [run(1.0, seed, state) for seed, state in enumerate(states)]
        return measure_row(Row("resnet20", 8.75, 0.5), TABLE, EXPERIMENT, runs, comparable=True).verdict

    assert verdict("to do") == "not run"
    assert verdict("to do", "interrupted") == "interrupted"
    assert verdict("interrupted", "failed") == "failed"
    assert verdict("failed", "broken") == "broken"
    assert verdict("broken", "finished") == "OUTSIDE"  # by the seed that there is


def test_the_table_in_words() -> None:
    runs = [run(9.0, 0), run(8.5, 1), run(0.0, 2, "interrupted")]
    some = measure_row(Row("resnet20", 8.75, 0.5), TABLE, EXPERIMENT, runs, comparable=True)
    other = row(93.0, comparable=False)
    lines = format_rows([some, other], "%").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["network", "parameters", "paper %", "measured %", "seeds", "difference", "verdict"]
    assert cells[2] == ["ResNet-20", "269,722", "8.75", "8.75 ± 0.35", "2 of 3", "+0.00", "inside ±0.5"]
    assert cells[3] == ["ResNet-20", "269,722", "8.75", "93.00", "1", "-", "no verdict"]
    assert len({len(line) for line in lines}) == 1
    said = {"label": "ResNet-20", "experiment": "resnet20", "parameters": 269722, "paper": 8.75, "band": 0.5}
    assert row_as_json(some).items() >= (said | {"values": {0: 9.0, 1: 8.5}, "verdict": "inside"}).items()


def judged(numbers: dict[str, float | None], *conditions: Condition) -> tuple[str, list[str]]:
    def number(name: str, metric: str | None) -> Measured:
        value = numbers.get(metric or name)
        return Measured({} if value is None else {3: value - 0.5, 5: value + 0.5} if name == "b" else {0: value}, 2)

    claim = judge(Claim("c", list(conditions)), number, {"a": "A", "b": "B"})
    assert format_claims([claim]).startswith(f"- **{claim.outcome}**: c (")
    return claim.outcome, claim.numbers


def test_claims() -> None:
    below, above = Condition("a", below="b"), Condition("a", above="b")
    assert judged({"a": 1.0, "b": 2.0}, below) == ("holds", ["A 1.00 (1 seed) below B 2.00 (2 seeds)"])
    assert judged({"a": 1.0, "b": 2.0}, above) == ("DOES NOT HOLD", ["A 1.00 (1 seed) above B 2.00 (2 seeds)"])
    assert judged({"a": 2.0, "b": 2.0}, above)[0] == "DOES NOT HOLD"
    assert judged({"a": 1.0}, below) == ("not run", ["A 1.00 (1 seed) below B -"])
    training = Condition("a", below=0.1, metric="curve.train.top1_error", what="training error")
    assert judged({"curve.train.top1_error": 0.05}, training) == (
        "holds",
        ["A training error 0.05 (1 seed) below 0.1"],
    )
    # All conditions must hold; one that does not is enough.
    assert judged({"a": 1.0, "b": 2.0}, below, training)[0] == "not run"
    assert judged({"a": 1.0, "b": 2.0}, above, training)[0] == "DOES NOT HOLD"


def test_only_the_papers_data_schedule_and_recipe_can_be_compared() -> None:
    own, other = DataSet("CIFAR-10"), DataSet("JPEG", stands_for="cifar10", note="Less detail.")
    fast = {"precision": "bf16", "train.compile": True, "train.workers": 0}
    assert Circumstances("d", own, 1.0, fast).comparable
    assert Circumstances("d", own, 1.0, fast).warning() == ""
    for data, scale, options, reason in [
        (other, 1.0, {}, "not the paper's data (JPEG)"),
        (own, 0.5, {}, "not the paper's schedule"),
        (own, "smoke", {}, "not the paper's schedule"),
        (own, 1.0, {"train.batch_size": 64}, "not the paper's recipe (train.batch_size set)"),
        (own, 1.0, {"optimizer.lr": 1.0} | fast, "not the paper's recipe (optimizer.lr set)"),
    ]:
        circumstances = Circumstances("d", data, scale, options)  # type: ignore[arg-type]
        assert not circumstances.comparable
        assert reason in circumstances.warning()
        assert ("Less detail." in circumstances.warning()) == (data is other)
    described = Circumstances("d", own, 0.0625, fast | {"optimizer.lr": 1.0}).describe()
    assert described == "CIFAR-10; schedule shortened to 6.25 % of its length; optimizer.lr 1.0"


def test_orderings_say_something_of_whole_recipes_only() -> None:
    other = DataSet("JPEG", stands_for="cifar10")
    fast = {"precision": "bf16"}
    for scale, options, judged_as_well, heading in [
        (1.0, fast, True, "What the paper shows:"),
        (0.5, {}, True, "What the paper shows (judged on a schedule shortened to 50 % of its length):"),
        ("smoke", {}, False, "What the paper shows (not judged: these runs are not trained as the paper's):"),
        (1.0, {"optimizer.lr": 1.0}, False, "What the paper shows (not judged: these runs are not trained as"),
    ]:
        circumstances = Circumstances("d", other, scale, options)  # type: ignore[arg-type]
        assert circumstances.judged == judged_as_well
        assert circumstances.claims_heading().startswith(heading)


def test_columns_are_even() -> None:
    assert format_table([["a", "number", "t"], ["long", "1", "word"]], texts=1, last=1) == (
        "| a    | number | t    |\n|------|-------:|------|\n| long |      1 | word |"
    )
    assert format_table([["a", "number"], ["long", "1"], ["b", ""]], texts=1, bars=False) == (
        "a     number\nlong       1\nb"
    )
