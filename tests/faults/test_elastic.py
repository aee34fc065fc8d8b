"""The short form of what happens to several processes and hosts, and what is told of a run's processes."""

import os
from random import Random
from signal import SIGKILL

import pytest

from tests.faults.comparison import read_record
from tests.faults.elastic import network_cut
from tests.faults.harness import Trial, run_trial
from tests.faults.hosts import why_no_hosts
from tests.faults.lab import Lab
from tests.faults.processes import start_torchrun, wait_for_ranks


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A lab whose undisturbed run both tests share."""
    return Lab(tmp_path_factory.mktemp("elastic"), cold=False)


def test_the_main_process_of_two_is_killed(lab: Lab) -> None:
    def killed(trial: Trial, random: Random) -> None:
        start_torchrun(trial)
        trial.wait_for_steps(random.randint(3, 40))
        os.kill(wait_for_ranks(trial)[0], SIGKILL)
        trial.hurt("rank 0 killed", None)
        trial.must_go_on()
        assert len(read_record(trial.output)["restarts"]) == 1

    (fault,) = run_trial(lab, "killed once", killed, lab.workloads["shared classifier x2"], seed=1)
    assert fault.survived, fault.reason


@pytest.mark.slow  # half a minute of waiting for the network
@pytest.mark.skipif(why_no_hosts() is not None, reason=str(why_no_hosts()))
def test_two_hosts_lose_each_other(lab: Lab) -> None:
    (fault,) = run_trial(lab, "cut", network_cut, lab.workloads["shared classifier x2"], seed=1)
    assert fault.survived, fault.reason
