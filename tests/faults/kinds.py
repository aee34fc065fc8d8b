"""All kinds of faults, and the runs that each hurts in turn."""

from dataclasses import dataclass

from tests.faults.clock import clock_set
from tests.faults.damage import all_damaged, flipped, overwritten, torn_curve, torn_record, truncated
from tests.faults.data_faults import corrupted, vanished, worker_killed
from tests.faults.disks import full_disk, read_only_disk
from tests.faults.elastic import host_joins, host_killed, network_cut
from tests.faults.harness import Kind
from tests.faults.kills import killed, killed_in_a_write
from tests.faults.mismatches import other_config, other_data, other_threads, other_world_size
from tests.faults.processes import process_killed, torchrun_killed, torchrun_terminated
from tests.faults.signals import hung_up, interrupted, interrupted_twice, terminated
from tests.faults.two_runs import same_moment, same_output


@dataclass(frozen=True)
class Entry:
    """A kind of fault.

    Args:
        inflict: it.
        workloads: the names of those that it hurts.
        replayed: it is compared with a run that had as many processes at each step, not with the undisturbed one.
    """

    inflict: Kind
    workloads: tuple[str, ...]
    replayed: bool = False


_ALL = ("classifier", "alternating", "folders", "detector")
_WRITING = ("wide classifier", "detector", "folders")
_ONE_STAGE = ("detector", "classifier")
_FOLDERS = ("folders",)
_SHARED = ("shared classifier x2", "shared classifier x4")
_HOSTS = ("long shared classifier x2",)

KINDS = {
    "SIGKILL": Entry(killed, _ALL),
    "SIGKILL in a checkpoint's write": Entry(killed_in_a_write, (*_WRITING, "alternating")),
    "SIGTERM": Entry(terminated, _ALL[::-1]),
    "Ctrl-C": Entry(interrupted, ("folders", "detector", "classifier", "alternating")),
    "Ctrl-C twice": Entry(interrupted_twice, ("folders", "alternating")),
    "SIGHUP": Entry(hung_up, ("alternating", "folders")),
    "full disk": Entry(full_disk, ("wide classifier", "alternating", "detector")),
    "read-only output": Entry(read_only_disk, _ALL),
    "checkpoint truncated": Entry(truncated, _ALL),
    "checkpoint with flipped bits": Entry(flipped, _ALL[::-1]),
    "checkpoint overwritten": Entry(overwritten, _ALL),
    "all checkpoints damaged": Entry(all_damaged, _ALL[::-1]),
    "run.json torn": Entry(torn_record, _ALL),
    "metrics.jsonl torn": Entry(torn_curve, _ALL[::-1]),
    "data worker killed": Entry(worker_killed, _FOLDERS),
    "data file vanished": Entry(vanished, _FOLDERS),
    "data file corrupted": Entry(corrupted, _FOLDERS),
    "two runs, one output": Entry(same_output, _ALL),
    "runs begun together": Entry(same_moment, _ONE_STAGE),
    "clock set": Entry(clock_set, _ONE_STAGE),
    "resumed with another config": Entry(other_config, _ONE_STAGE),
    "resumed with other data": Entry(other_data, _FOLDERS),
    "resumed with other threads": Entry(other_threads, _ONE_STAGE),
    "resumed with another world size": Entry(other_world_size, _ONE_STAGE),
    "process of several killed": Entry(process_killed, _SHARED),
    "torchrun killed": Entry(torchrun_killed, _SHARED),
    "SIGTERM to torchrun": Entry(torchrun_terminated, _SHARED[::-1]),
    "network cut between hosts": Entry(network_cut, _SHARED[:1]),
    "host killed, and another joins": Entry(host_killed, _HOSTS, replayed=True),
    "host joins, and dies": Entry(host_joins, _HOSTS, replayed=True),
}
