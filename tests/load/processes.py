"""What a process and the processes that it began hold of the machine, from /proc."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Held:
    """What one process holds; bytes.

    Args:
        resident: pages in memory (RSS), those of files too, which other programs may share.
        anonymous: of those, pages of no file: what was allocated, and what it has from the process that began it.
        proportional: pages of no disk's file, one that n processes share counted as the nth part of one (PSS).
        files: open files.
        threads: running in it.
    """

    resident: int
    anonymous: int
    proportional: int
    files: int
    threads: int


def held_by(process: int) -> Held | None:
    """None where it has gone, or is about to."""
    folder = Path(f"/proc/{process}")
    try:
        lines = (folder / "smaps_rollup").read_text().splitlines()[1:]
        memory = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
        return Held(
            memory["Rss"],
            memory["Anonymous"],
            memory["Pss_Anon"] + memory["Pss_Shmem"],
            len(os.listdir(folder / "fd")),
            len(os.listdir(folder / "task")),
        )
    except (OSError, KeyError, ValueError):
        return None


def children_of(process: int) -> list[int]:
    """The processes that it began and that are alive, the oldest first."""
    try:
        pids = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []
    ages = {int(pid): age for pid in pids if (age := _began(int(pid))) is not None}
    return sorted(ages, key=lambda pid: (ages[pid], pid))


def _began(process: int) -> int | None:
    """Ticks of the clock from the start of the machine; None for a process that has ended."""
    try:
        words = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None
    return None if words[0] == "Z" else int(words[19])


def peak_of(process: int) -> int:
    """The most bytes that it has ever held (its RSS)."""
    try:
        (line,) = (row for row in Path(f"/proc/{process}/status").read_text().splitlines() if row.startswith("VmHWM"))
    except (OSError, ValueError):
        return 0
    return int(line.split()[1]) * 1024


def shared_memory() -> tuple[int, int]:
    """Files in /dev/shm, and the bytes that it holds: more, where a file has no name any more."""
    room = os.statvfs("/dev/shm")
    return len(os.listdir("/dev/shm")), (room.f_blocks - room.f_bfree) * room.f_frsize
