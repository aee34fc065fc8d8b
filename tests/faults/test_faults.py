"""The short form: a run of each cheap kind of fault. And that the harness sees what it is there to see."""

import shutil
from pathlib import Path
from random import Random
from signal import SIGKILL

import pytest
import torch

from tests.faults.comparison import checkpoints, differences, final_differences, read_lines, same_bits
from tests.faults.harness import Trial, run_trial
from tests.faults.kinds import KINDS
from tests.faults.lab import Fault, Lab, Unavailable

# Not more of each than a trial, of what is cheap: `make faults` does the rest.
SHORT = {
    "SIGKILL": "detector",
    "SIGKILL in a checkpoint's write": "classifier",
    "SIGTERM": "classifier",
    "Ctrl-C": "folders",
    "full disk": "classifier",
    "checkpoint with flipped bits": "classifier",
    "data worker killed": "folders",
    "data file vanished": "folders",
    "two runs, one output": "classifier",
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A lab whose undisturbed runs all tests of this file share."""
    return Lab(tmp_path_factory.mktemp("faults"), cold=False)


@pytest.fixture
def finished(lab: Lab, tmp_path: Path) -> Path:
    """A copy of the undisturbed run of the classifier with its last two checkpoints, to change."""
    run = shutil.copytree(lab.undisturbed(lab.workloads["classifier"]), tmp_path / "run")
    for _, path in sorted(checkpoints(run).items())[:-2]:
        path.unlink()
    return run


@pytest.mark.parametrize("name", SHORT)
def test_a_run_survives(name: str, lab: Lab) -> None:
    try:
        faults = run_trial(lab, name, KINDS[name].inflict, lab.workloads[SHORT[name]], seed=3)
    except Unavailable as error:
        pytest.skip(str(error))
    assert faults
    assert all(fault.survived for fault in faults), [fault.reason for fault in faults]


def test_an_unchanged_run_is_the_undisturbed_one(lab: Lab, finished: Path) -> None:
    assert not list(final_differences(finished, lab.undisturbed(lab.workloads["classifier"])))


def test_one_bit_of_a_weight_is_seen(lab: Lab, finished: Path) -> None:
    weights = finished / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    (difference,) = final_differences(finished, lab.undisturbed(lab.workloads["classifier"]))
    assert "weights.safetensors: other bits" in difference


def test_one_number_of_an_optimizer_is_seen(lab: Lab, finished: Path) -> None:
    step, path = max(checkpoints(finished).items())
    saved = torch.load(path, weights_only=True)
    saved["optimizer"]["state"][0]["momentum_buffer"][0, 0, 0, 0] += 1e-7
    torch.save(saved, path)
    (difference,) = differences(finished, lab.undisturbed(lab.workloads["classifier"]))
    assert str(path) in difference
    assert step == 60


@pytest.mark.parametrize("lost", [0, 5, 30])
def test_a_lost_line_is_seen(lost: int, lab: Lab, finished: Path) -> None:
    curve = finished / "metrics.jsonl"
    lines = curve.read_text().splitlines(keepends=True)
    curve.write_text("".join(lines[:lost] + lines[lost + 1 :]))
    found = list(differences(finished, lab.undisturbed(lab.workloads["classifier"])))
    assert len(found) == ('"train"' in lines[lost])  # a test is done after its checkpoint
    assert list(final_differences(finished, lab.undisturbed(lab.workloads["classifier"])))


def test_a_line_written_anew_is_seen_by_its_clock(lab: Lab, tmp_path: Path) -> None:
    def rewrite(trial: Trial, random: Random) -> None:
        trial.start()
        trial.wait_for_steps(10)
        trial.running.send(SIGKILL)
        trial.hurt("killed", trial.running.wait())
        first = read_lines(trial.output)[0]
        curve = trial.output / "metrics.jsonl"
        speed = f'"images_per_second": {first["images_per_second"]}'
        curve.write_text(curve.read_text().replace(speed, '"images_per_second": 1.5', 1))

    (fault,) = run_trial(lab, "rewritten", rewrite, lab.workloads["classifier"], seed=0)
    assert not fault.survived
    assert "lost {'step': 3" in str(fault.reason)


def test_a_run_that_began_anew_is_seen(lab: Lab) -> None:
    def begin_anew(trial: Trial, random: Random) -> None:
        trial.start()
        trial.wait_for_steps(10)
        trial.running.send(SIGKILL)
        trial.hurt("killed", trial.running.wait())
        shutil.rmtree(trial.output)

    (fault,) = run_trial(lab, "forgotten", begin_anew, lab.workloads["classifier"], seed=0)
    assert not fault.survived
    assert "lost" in str(fault.reason)


def test_bits_are_compared_not_values() -> None:
    nan = torch.tensor([float("nan"), 0.0])
    assert same_bits({"a": [nan]}, {"a": [nan.clone()]})
    assert not same_bits(torch.tensor(0.0), torch.tensor(-0.0))
    assert not same_bits(torch.zeros(2), torch.zeros(2, 1))
    assert not same_bits(torch.zeros(2), torch.zeros(2, dtype=torch.int32))
    assert not same_bits({"a": 1}, {"a": 1, "b": 2})


def test_a_row_has_what_it_says() -> None:
    row = Fault("SIGKILL", "detector", 3, "after step 4", -9, True, 1.5, 2).to_json()
    assert row["exit_code"] == -9
    assert "reason" not in row
