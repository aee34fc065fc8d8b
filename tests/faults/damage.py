"""Files of a run that a disk has damaged while nobody was at work in it."""

import json
import shutil
from pathlib import Path
from random import Random
from signal import SIGKILL

from tests.faults.comparison import checkpoints
from tests.faults.harness import Trial
from tests.faults.running import Ended


def truncated(trial: Trial, random: Random) -> None:
    """The newest checkpoint ends early, or is empty: it is named, moved aside, and the one before is used."""
    ended, path = _with_two_checkpoints(trial, random)
    whole = path.read_bytes()
    size = random.choice([0, random.randrange(len(whole)), len(whole) - random.randint(1, 100)])
    path.write_bytes(whole[:size])
    trial.hurt(f"{path.name} cut to {size:,} of {len(whole):,} bytes", ended, without=[path])
    _go_on_without(trial, path)


def flipped(trial: Trial, random: Random) -> None:
    """Bits of the newest checkpoint are others: it is moved aside too, unless they are bits that nobody reads."""
    ended, path = _with_two_checkpoints(trial, random)
    content = bytearray(path.read_bytes())
    places = [random.randrange(8 * len(content)) for _ in range(random.choice([1, 1, 8]))]
    for place in places:
        content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)
    trial.hurt(f"{path.name}: bits {places} of {8 * len(content):,} flipped", ended, without=[path])
    _go_on_without(trial, path, surely=False)


def overwritten(trial: Trial, random: Random) -> None:
    """The newest checkpoint is something else: noise, zeros, text, the head of an archive."""
    ended, path = _with_two_checkpoints(trial, random)
    size = path.stat().st_size
    content = random.choice([random.randbytes(size), bytes(size), b"{}\n", b"PK\3\4" + random.randbytes(999)])
    path.write_bytes(content)
    trial.hurt(f"{path.name} replaced by {len(content):,} bytes, {content[:8]!r}...", ended, without=[path])
    _go_on_without(trial, path)


def all_damaged(trial: Trial, random: Random) -> None:
    """No checkpoint is whole: refused, never begun anew in silence; once one is put back the run goes on."""
    ended, path = _with_two_checkpoints(trial, random)
    kept = trial.folder / "kept"
    shutil.copytree(path.parent, kept)
    damaged = list(checkpoints(path.parents[1]).values())
    for each in damaged:
        each.write_bytes(each.read_bytes()[: random.randrange(each.stat().st_size)])
    trial.hurt(f"all {len(damaged)} checkpoints cut", ended, without=damaged)
    with trial.unchanged(but="run.json"):
        trial.start()
        trial.expect_refusal(trial.running.wait(), path.name)
    back = random.choice(damaged)
    shutil.copy(kept / back.name, back)


def torn_record(trial: Trial, random: Random) -> None:
    """run.json ends early: refused with the remedy, which works."""
    ended, _ = _with_two_checkpoints(trial, random)
    path = trial.output / "run.json"
    whole = path.read_bytes()
    path.write_bytes(whole[: (size := random.randrange(len(whole) - 2))])
    trial.hurt(f"run.json cut to {size:,} of {len(whole):,} bytes", ended)
    with trial.unchanged():
        trial.start()
        trial.expect_refusal(trial.running.wait(), "run.json", "--allow_mismatch")
    trial.start("--allow_mismatch")
    trial.must_go_on()


def torn_curve(trial: Trial, random: Random) -> None:
    """metrics.jsonl ends in the middle of a line, or in what a file system leaves of blocks that it never wrote."""
    ended, path = _with_two_checkpoints(trial, random)
    curve = path.parents[1] / "metrics.jsonl"
    lines = curve.read_bytes().splitlines(keepends=True)
    step = max(checkpoints(path.parents[1]))
    safe = b"".join(line for line in lines if json.loads(line)["step"] <= step)
    size = random.randint(len(safe), len(b"".join(lines)))
    rests = [bytes(64), random.randbytes(64), b'{"step": 7, "spl']
    if size < len(b"".join(lines)):  # else nothing would change
        rests.append(b"")
    rest = random.choice(rests)
    curve.write_bytes(b"".join(lines)[:size] + rest)
    trial.hurt(f"metrics.jsonl cut {size - len(safe)} bytes after the newest checkpoint, then {rest[:12]!r}", ended)


def _with_two_checkpoints(trial: Trial, random: Random) -> tuple[Ended, Path]:
    """Trains until a stage has two checkpoints, and kills it; returns the newest of those."""
    trial.start()
    every = trial.workload.checkpoint_every
    wanted = every * random.randint(2, trial.workload.steps // every - 2)
    trial.wait_for_steps(wanted)
    enough = trial.wait_for(lambda: len(list(trial.output.rglob("step_*.pt"))) >= 2)
    trial.running.send(SIGKILL)
    ended = trial.running.wait()
    trial.expect(enough and len(list(trial.output.rglob("step_*.pt"))) >= 2, "never had two checkpoints")
    trial.check()
    return ended, trial.newest_checkpoint()[1]


def _go_on_without(trial: Trial, path: Path, surely: bool = True) -> None:
    """Resumes; the damage must be named, the file moved aside and the one before used."""
    bad = path.read_bytes()
    aside = path.with_name(f"{path.name}.damaged")
    trial.start()
    trial.wait_for(lambda: aside.exists())
    moved = aside.read_bytes() if aside.exists() else None  # a stage that is finished keeps no checkpoints
    trial.must_go_on()
    ended = trial.running.wait()
    said = str(path) in ended.output and "goes on from step" in ended.output
    if surely or said:
        trial.expect(said, f"does not name {path}: {ended}")
        trial.expect(moved == bad, f"{aside} is not the damaged file")
    else:
        trial.faults[-1].moment += " (where nobody reads them)"
        trial.faults[-1].steps_repeated = 0
