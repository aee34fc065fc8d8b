"""The SLURM script, on two hosts in network namespaces: SLURM's commands are replaced by scripts that do the same."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.comparison import read_lines, read_record
from tests.faults.hosts import INTERFACE, Network, connect_hosts, why_no_hosts
from tests.faults.running import ENVIRONMENT, ROOT
from tests.faults.workloads import workloads

SCRIPT = ROOT / "docs/slurm/train.sbatch"


@pytest.mark.slow
@pytest.mark.skipif(why_no_hosts() is not None, reason=str(why_no_hosts()))
def test_a_job_is_requeued_until_it_is_done(tmp_path: Path) -> None:
    output = tmp_path / "run"
    with connect_hosts(2) as network:
        requeued = write_commands(tmp_path / "bin", network)
        job = start_job(tmp_path, output, network, restarts=0)
        while len(read_lines(output)) < 8:
            assert job.poll() is None, (tmp_path / "job.log").read_text()
            time.sleep(0.05)
        # As SLURM does before the time limit, by --signal=TERM@120: to the tasks, not to the script.
        for pid in map(int, (tmp_path / "bin/tasks").read_text().split()):
            os.kill(pid, signal.SIGTERM)
        assert job.wait(100) == 1
        assert read_record(output)["status"] == "interrupted"
        assert requeued.read_text() == "requeue 4711\n"

        finished = start_job(tmp_path, output, network, restarts=1)
        assert finished.wait(100) == 0, (tmp_path / "job.log").read_text()
    record = read_record(output)
    assert record["status"] == "finished"
    assert record["processes"] == 2
    assert len(record["restarts"]) == 1
    assert record["restarts"][0]["step"] >= 8
    assert requeued.read_text() == "requeue 4711\n"


def start_job(folder: Path, output: Path, network: Network, restarts: int) -> subprocess.Popen:
    """Runs the script as SLURM would."""
    variables = {
        **{"SLURM_JOB_ID": "4711", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "host[0-1]", "PROCESSES": "1"},
        **{"SLURM_RESTART_COUNT": str(restarts), "GLOO_SOCKET_IFNAME": INTERFACE, "RDZV_CONF": "last_call_timeout=3"},
        "PATH": os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    workload = workloads(folder)["classifier"]
    command = ["bash", str(SCRIPT), str(output), "tools/pretrain.py", *workload.options]
    with (folder / "job.log").open("a") as log:
        return subprocess.Popen(
            command, cwd=ROOT, env=os.environ | ENVIRONMENT | variables, stdout=log, stderr=log, start_new_session=True
        )


def write_commands(folder: Path, network: Network) -> Path:
    """Writes `srun`, which starts a task on each host and waits for all, and `scontrol`; returns what is requeued."""
    folder.mkdir()
    tasks = "\n".join(
        f'SLURM_NODEID={number} SLURMD_NODENAME={host.address} {shlex.join(host.prefix)} "$@" & echo $! >> $tasks'
        for number, host in enumerate(network.hosts)
    )
    wait = 'code=0; for task in $(cat "$tasks"); do wait $task || code=$?; done; exit $code'
    srun = f"#!/bin/bash\nshift\ntasks={folder}/tasks\nrm -f $tasks\n{tasks}\n{wait}\n"
    names = "\\n".join(host.address for host in network.hosts)
    scontrol = (
        f"#!/bin/bash\nif [ $1 = show ]; then printf '{names}\\n'; else echo \"$1 $2\" >> {folder}/requeued; fi\n"
    )
    for name, text in (("srun", srun), ("scontrol", scontrol)):
        path = folder / name
        path.write_text(text)
        path.chmod(0o755)
    return folder / "requeued"
