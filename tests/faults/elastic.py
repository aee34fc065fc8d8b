"""Runs over several hosts: the network is cut, hosts die and come back, others join."""

import json
import os
import re
import shutil
import time
from pathlib import Path
from random import Random
from signal import SIGKILL
from typing import Any

from tests.faults.comparison import checkpoints, read_record
from tests.faults.harness import Trial
from tests.faults.hosts import INTERFACE, Host, connect_hosts
from tests.faults.processes import ranks_of, torchrun
from tests.faults.running import Running, start_cold

_PORT = 29400
_TIMEOUT = ("--timeout_minutes", "0.1")
_ENVIRONMENT = {"GLOO_SOCKET_IFNAME": INTERFACE, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
# A host that is silent for 3 seconds is gone; for 3 seconds more than the fewest are waited for.
_PATIENCE = "last_call_timeout=3,keep_alive_interval=1,keep_alive_max_attempt=3"


def network_cut(trial: Trial, random: Random) -> None:
    """Two hosts lose each other for longer than the time-out, and go on when the network is back."""
    network = trial.cleanup.enter_context(connect_hosts(2))
    running = [start_on(trial, host, network.hosts[0], "2") for host in network.hosts]
    trial.wait_for_steps(random.randint(4, trial.workload.steps // 2))
    lost = random.choice(network.hosts)
    network.cut(lost)
    time.sleep(random.uniform(7, 9))
    trial.hurt(f"{lost.address} cut off after step {trial.steps_logged()}", None)
    network.mend(lost)
    finish(trial, running)


def host_killed(trial: Trial, random: Random) -> None:
    """One of two hosts dies, the other goes on alone; one joins, and they go on together."""
    network = trial.cleanup.enter_context(connect_hosts(2))
    first, second = network.hosts
    running = [start_on(trial, host, first, "1:2", "--elastic") for host in network.hosts]
    wait_for_processes(trial, 2)
    trial.wait_for_steps(trial.steps_logged() + random.randint(1, 10))
    dies = running.pop()
    kill_host(dies)
    moment = f"{second.address} died after step {trial.steps_logged()}"
    wait_for_processes(trial, 1)
    trial.wait_for_steps(trial.steps_logged() + 2)
    running.append(start_on(trial, second, first, "1:2", "--elastic"))
    trial.expect(wait_until_ended(running), "the hosts do not end")
    trial.undisturbed = replay(trial)
    trial.hurt(moment, None)
    finish(trial, running)


def host_joins(trial: Trial, random: Random) -> None:
    """A third host joins a run of two: they save after their step and go on as three; then one dies."""
    network = trial.cleanup.enter_context(connect_hosts(3))
    first, second, third = network.hosts
    running = [start_on(trial, host, first, "2:3", "--elastic") for host in (first, second)]
    trial.wait_for_steps(random.randint(1, 5))
    running.append(start_on(trial, third, first, "2:3", "--elastic"))
    moments = [f"{third.address} joined after step {trial.steps_logged()}"]
    wait_for_processes(trial, 3)
    trial.wait_for_steps(trial.steps_logged() + random.randint(1, 5))
    kill_host(running.pop())
    moments.append(f"{third.address} died after step {trial.steps_logged()}")
    trial.expect(trial.steps_logged() < trial.workload.steps, "the run was faster")
    trial.expect(wait_until_ended(running), "the hosts do not end")
    trial.undisturbed = replay(trial)
    for moment in moments:
        trial.hurt(moment, None)
    finish(trial, running)


def start_on(trial: Trial, host: Host, endpoint: Host, hosts: str, *more: str) -> Running:
    """Starts torchrun with one process on a host; `endpoint` is the host where all meet, `hosts` how many they are."""
    options = [
        *("--nnodes", hosts, "--rdzv-backend", "c10d", "--rdzv-id", "trial", "--local-addr", host.address),
        *("--rdzv-endpoint", f"{endpoint.address}:{_PORT}", "--max-restarts", "9"),
        # By its name, which all hosts share, a host can't tell whether it is the endpoint.
        *("--rdzv-conf", f"is_host={int(host == endpoint)},{_PATIENCE}"),
    ]
    prefix = [*host.prefix, *torchrun(1, *options)]
    # The first host's torchrun stays the one that the trial waits for.
    beside = host != endpoint
    return trial.start(*_TIMEOUT, *more, prefix=prefix, environment=_ENVIRONMENT, processes=1, beside=beside)


def kill_host(running: Running) -> None:
    """Kills all at once that runs on a host."""
    for pid in (running.pid, *ranks_of(running.pid).values()):
        os.kill(pid, SIGKILL)
    running.wait()


def wait_for_processes(trial: Trial, count: int) -> None:
    """Waits until the run goes on with so many processes."""
    found = trial.wait_for(lambda: read_record(trial.output).get("processes") == count)
    trial.expect(found, f"the run ended before it had {count} processes: {read_record(trial.output).get('restarts')}")


def wait_until_ended(running: list[Running], seconds: float = 300) -> bool:
    """Whether all end in time."""
    end = time.monotonic() + seconds
    while any(each.poll() is None for each in running):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def finish(trial: Trial, running: list[Running]) -> None:
    """All must end well by themselves; what became of their number is in the record."""
    for each in running:
        ended = each.wait(300)
        trial.expect(ended.code == 0, f"a host did not go on by itself: {ended}")
    restarts = read_record(trial.output)["restarts"]
    trial.expect(bool(restarts), "run.json has no restarts")


def replay(trial: Trial) -> Path:
    """A run on one machine with the numbers of processes that a run over hosts had, each for the same steps.

    What an elastic run promises is this: its bits are those of a run that was resumed at the same steps with the same
    numbers of processes, whatever the reason.
    """
    record = read_record(trial.output)
    output = trial.folder / "replayed"
    parts: list[dict[str, Any]] = [{"step": 0, "processes": _first_processes(trial)}, *record["restarts"]]
    for number, (part, following) in enumerate(zip(parts, [*parts[1:], None], strict=True)):
        if following and following["step"] == part["step"]:
            continue  # it did no step that counts
        workload = trial.workload.in_processes(part["processes"])
        options = ["--resume", "--elastic", "--train.checkpoint_every", "1", "--train.keep_checkpoints", "1000"]
        command = workload.command([*trial.workload.arguments(output), *options])
        ended = start_cold(command, trial.folder / f"replay_{number}").wait(300)
        trial.expect(ended.code == 0, f"the replay fails: {ended}")
        if following:
            _go_back(output, following["step"])
    return output


def _first_processes(trial: Trial) -> int:
    """How many processes the run began with, as it said."""
    logs = sorted(trial.folder.glob("process_*.out"))
    said = re.search(r"^(\d+) process\(es\) .*, steps 0 to", "".join(log.read_text() for log in logs), re.MULTILINE)
    assert said
    return int(said[1])


def _go_back(output: Path, step: int) -> None:
    """Makes a finished run one that ended after a step."""
    for later, path in checkpoints(output).items():
        if later > step:
            path.unlink()
    (output / "weights.safetensors").unlink()
    record = output / "run.json"
    record.write_text(json.dumps(read_record(output) | {"status": "interrupted"}))
    for events in output.glob("events.*"):
        events.unlink() if events.is_file() else shutil.rmtree(events)
