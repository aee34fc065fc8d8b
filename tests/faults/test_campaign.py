"""What a campaign says of kinds that fail, hurt nothing or are not compared with the undisturbed run."""

from collections.abc import Callable
from concurrent.futures import Future
from io import StringIO

import pytest
from tqdm import tqdm

from tests.faults.campaign import Campaign, _note
from tests.faults.lab import Fault, Unavailable


@pytest.fixture
def note() -> Callable[..., Campaign]:
    """Notes a trial that returned faults, or raised an error, in a campaign of SIGTERM."""

    def note_trial(outcome: list[Fault] | Exception, campaign: Campaign | None = None) -> Campaign:
        campaign = campaign or Campaign(asked=["SIGTERM"])
        trial: Future[list[Fault]] = Future()
        trial.set_exception(outcome) if isinstance(outcome, Exception) else trial.set_result(outcome)
        _note(campaign, "SIGTERM", 0, trial, tqdm(file=StringIO()))
        return campaign

    return note_trial


def test_an_unforeseen_failure_is_not_survived(note: Callable[..., Campaign]) -> None:
    report = note(KeyError("results")).to_json({"detector": 4})
    assert (report["injected"], report["survived"]) == (1, 0)
    assert "KeyError: 'results'" in report["faults"][0]["reason"]


def test_a_kind_that_hurts_nothing_has_a_row_and_is_given_up(note: Callable[..., Campaign]) -> None:
    campaign = Campaign(asked=["SIGTERM"])
    for _ in range(5):
        assert campaign.wants("SIGTERM", 1)
        note([], campaign)
    assert not campaign.wants("SIGTERM", 1)
    assert campaign.to_json({})["kinds"]["SIGTERM"]["injected"] == 0


def test_a_kind_that_cannot_be_made_is_left_out(note: Callable[..., Campaign]) -> None:
    campaign = note(Unavailable("no root"))
    assert not campaign.wants("SIGTERM", 1)
    report = campaign.to_json({})
    assert (report["kinds"], report["skipped"]) == ({}, {"SIGTERM": "no root"})


def test_what_nobody_knows_is_null() -> None:
    kinds = ["SIGTERM", "host joins, and dies"]
    faults = [Fault(kind, "detector", 0, "then", None, survived=True) for kind in kinds]
    report = Campaign(faults=faults, asked=kinds).to_json({"detector": 4})
    assert [report["kinds"][kind]["samples_lost"] for kind in kinds] == [0, None]
    assert report["samples_lost"] is None
    assert report["faults"][0]["steps_repeated"] is None
    assert report["steps_repeated_known_of"] == 0
