"""TIDE's numbers: those of the authors' package (tide.json, which make_tide.py writes with it)."""

import json
from pathlib import Path

import pytest
from tide_cases import SEEDS, tide_case

from detection.analysis.outcomes import Kind, find_outcomes
from detection.analysis.tide import ERROR_TYPES, find_errors

GOLDEN = json.loads((Path(__file__).parent / "tide.json").read_text())


@pytest.mark.parametrize("seed", SEEDS)
def test_the_numbers_of_tidecv(seed: int) -> None:
    annotations, detections = tide_case(seed)
    theirs = GOLDEN[str(seed)]
    ours = find_errors(annotations, detections)
    assert ours.overall is not None
    assert set(annotations.labels[~annotations.ignore]) == {1, 2, 3, 4}  # else the means are over other classes
    assert ours.overall.ap == pytest.approx(theirs["ap"], abs=1e-9)
    assert ours.overall.lost == pytest.approx(theirs["lost"], abs=1e-9)
    assert ours.overall.special == pytest.approx(theirs["special"], abs=1e-9)
    for k, errors in enumerate(ours.per_class.values()):
        assert errors is not None
        before = theirs["per_class"][k]
        assert errors.ap == pytest.approx(before, abs=1e-9)
        for name, gain in {**errors.lost, **errors.special}.items():
            after = theirs["mended"][name][k]
            expected = (100 if after is None else after) - before
            assert gain == pytest.approx(max(expected, 0) if name in ERROR_TYPES else expected, abs=1e-9), name
    # How many errors there are; tidecv also counts those in ignored objects.
    outcomes = find_outcomes(annotations, detections)
    counts = {kind.name.lower(): int((outcomes.kinds == kind).sum()) for kind in Kind if kind != Kind.FOUND}
    assert {**counts, "missed": outcomes.missed.sum()} == theirs["counts"]


def test_the_cases_have_errors_of_every_type() -> None:
    for name in ERROR_TYPES:
        assert sum(case["lost"][name] > 0.5 for case in GOLDEN.values()) > len(SEEDS) / 3
