"""Checkpoints are whole or absent, and loading one runs nothing."""

import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from backbones.engine.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint, write_atomically
from backbones.engine.distributed import World
from backbones.engine.state import TrainState, restore
from backbones.errors import CheckpointError

ALONE = World(0, 1, torch.device("cpu"))


class Trap:
    """A pickle of this makes a file when it is loaded without care."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def state_of(model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int) -> dict[str, Any]:
    return {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}


@pytest.fixture
def network() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """A layer whose momentum is not empty."""
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def test_what_is_saved_comes_back(tmp_path: Path, network: Any) -> None:
    path = save_checkpoint(tmp_path / "checkpoints", 7, state_of(*network, 7), keep=2)
    assert path.name == "step_00000007.pt"
    assert torch.load(path, weights_only=True)["step"] == 7  # loadable by anyone, code or no code of ours
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    assert restore(tmp_path / "checkpoints", TrainState(model, optimizer), 7, ALONE) == 7
    assert torch.equal(model.weight, network[0].weight)
    momentum = [o.state[p]["momentum_buffer"] for o, p in [(optimizer, model.weight), (network[1], network[0].weight)]]
    assert torch.equal(*momentum)


def test_only_the_last_are_kept(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for step in (1, 2, 10, 30):
        save_checkpoint(tmp_path, step, {"step": step}, keep=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "notes.txt",
        "step_00000002.pt",
        "step_00000010.pt",
        "step_00000030.pt",
    ]
    latest = latest_checkpoint(tmp_path)
    assert latest is not None
    assert load_checkpoint(latest)["step"] == 30


def test_steps_count_as_numbers(tmp_path: Path) -> None:
    for step in (99_999_999, 100_000_000):
        save_checkpoint(tmp_path, step, {}, keep=2)
    assert latest_checkpoint(tmp_path) == tmp_path / "step_100000000.pt"


def test_a_write_that_fails_in_the_middle_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, lambda temporary: temporary.write_text("old"))

    def fail(temporary: Path) -> None:
        temporary.write_text("ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == "old"


def test_the_file_is_on_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: order.append("fsync"))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *names: order.append("rename") or replace(*names))
    save_checkpoint(tmp_path, 1, {"step": 1}, keep=1)
    assert order == ["fsync", "rename", "fsync"]  # the last of the folder: else a power cut could undo the renaming


def test_a_kill_in_the_middle_of_a_write_leaves_the_last_good_one(tmp_path: Path, network: Any) -> None:
    good = save_checkpoint(tmp_path, 3, state_of(*network, 3), keep=2)
    (tmp_path / ".step_00000006.pt.tmp").write_bytes(good.read_bytes()[:500])
    assert latest_checkpoint(tmp_path) == good
    assert restore(tmp_path, TrainState(*network), 10, ALONE) == 3


def same(one: Any, two: Any) -> bool:
    """Whether two states are equal, values, types and bits."""
    if isinstance(one, torch.Tensor):
        return isinstance(two, torch.Tensor) and one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return isinstance(two, dict) and one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(two) and len(one) == len(two) and all(map(same, one, two))
    return type(one) is type(two) and one == two


def test_no_flipped_bit_changes_what_is_read(tmp_path: Path, network: Any) -> None:
    """Refused, or in a place that does not matter."""
    path = save_checkpoint(tmp_path, 3, state_of(*network, 3), keep=1)
    whole, state, refused = path.read_bytes(), load_checkpoint(path), 0
    for place in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            assert same(load_checkpoint(path), state), place
        except CheckpointError:
            refused += 1
    assert refused > len(whole) / 6


def test_flipped_weights_are_not_taken_for_good(tmp_path: Path, network: Any) -> None:
    """PyTorch reads them without a word, and of a record that says it is a folder nothing at all."""
    path = save_checkpoint(tmp_path, 3, state_of(*network, 3), keep=1)
    whole, state = path.read_bytes(), load_checkpoint(path)
    for place, bit, named in (
        (
            whole.index(network[0].weight.detach().numpy().tobytes()) + 2,
            1,
            "the checksum of its record 'archive/data/0'",
        ),
        (whole.index(b"PK\x01\x02") + 38, 16, "says that it is a folder"),
    ):
        damaged = bytearray(whole)
        damaged[place] ^= bit
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=named):
            load_checkpoint(path)
        if bit == 1:
            assert not same(torch.load(path, weights_only=True), state)


def test_no_shortened_checkpoint_is_read(tmp_path: Path, network: Any) -> None:
    path = save_checkpoint(tmp_path, 3, state_of(*network, 3), keep=1)
    whole = path.read_bytes()
    for length in range(0, len(whole), 41):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="not a readable checkpoint"):
            load_checkpoint(path)


def test_damaged_ones_are_kept_aside_and_said(tmp_path: Path, network: Any, capsys: pytest.CaptureFixture) -> None:
    paths = [save_checkpoint(tmp_path, step, state_of(*network, step), keep=3) for step in (2, 4, 6)]
    for path in paths[1:]:
        path.write_bytes(b"rotten")
    assert restore(tmp_path, TrainState(*network), 10, ALONE) == 2
    assert capsys.readouterr().out.count("goes on from step 2, the one before (it is kept as step_0000000") == 2
    assert [path.with_name(f"{path.name}.damaged").read_bytes() for path in paths[1:]] == [b"rotten"] * 2
    assert latest_checkpoint(tmp_path) == paths[0]


@pytest.mark.parametrize(
    "error",
    [OSError(116, "Stale file handle"), RuntimeError("DefaultCPUAllocator: can't allocate memory"), MemoryError()],
)
def test_what_the_machine_lacks_is_no_damage(
    tmp_path: Path, network: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The newest checkpoint stays where it is: it is whole."""
    paths = [save_checkpoint(tmp_path, step, state_of(*network, step), keep=2) for step in (2, 4)]

    def fail(*arguments: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(type(error)):
        restore(tmp_path, TrainState(*network), 10, ALONE)
    assert sorted(tmp_path.iterdir()) == paths


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, network: Any) -> None:
    """A limit on the size of files stands for it; tests/faults fills real ones."""
    good = save_checkpoint(tmp_path, 3, state_of(*network, 3), keep=1)
    before = good.read_bytes()
    program = (
        "import resource, sys, torch; from pathlib import Path\n"
        "from backbones.engine.checkpoint import save_checkpoint\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "save_checkpoint(Path(sys.argv[1]), 6, {'step': 6, 'model': torch.zeros(50000)}, 1)"
    )
    finished = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    last = finished.stderr.rstrip().split("\n")[-1]
    path = tmp_path / "step_00000006.pt"
    assert f"{path}: can't be written (File too large): mend that (make room), and go on with --resume" in last
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {good.name: before}


def test_no_checkpoint_means_a_start_at_0(tmp_path: Path, network: Any) -> None:
    assert latest_checkpoint(tmp_path / "nowhere") is None
    assert restore(tmp_path, TrainState(*network), 10, ALONE) == 0


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path) -> None:
    trap = Trap(tmp_path / "sprung")
    pickle.loads(pickle.dumps(trap))  # the trap works
    trap.path.rmdir()
    for name, write in [("zip.pt", torch.save), ("plain.pt", lambda o, p: Path(p).write_bytes(pickle.dumps(o)))]:
        write({"step": 1, "model": trap}, tmp_path / name)
        with pytest.raises(CheckpointError, match=name) as error:
            load_checkpoint(tmp_path / name)
        assert "\n" not in str(error.value)
        assert not trap.path.exists()


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_a_truncated_checkpoint_is_named(tmp_path: Path, share: float) -> None:
    path = save_checkpoint(tmp_path, 5, {"model": torch.zeros(1000)}, keep=1)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CheckpointError, match=r"step_00000005\.pt") as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.pt: no such file"):
        load_checkpoint(tmp_path / "none.pt")


@pytest.mark.parametrize(
    "state",
    [
        [1, 2],
        {"model": {}},
        {"step": 3, "model": {"weight": torch.zeros(5)}, "optimizer": {}},
        {"step": 3, "model": None, "optimizer": None},
        {"step": 11, "model": torch.nn.Linear(3, 2).state_dict(), "optimizer": None},
        {"step": "x", "model": torch.nn.Linear(3, 2).state_dict(), "optimizer": None},
        {"step": 3, "model": torch.nn.Linear(3, 2).state_dict(), "optimizer": 3},
        {"step": 3, "model": torch.nn.Linear(3, 2).state_dict(), "optimizer": {"state": {}, "param_groups": []}},
    ],
)
def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path, network: Any, state: Any) -> None:
    save_checkpoint(tmp_path, 3, state, keep=1)
    with pytest.raises(CheckpointError, match=r"step_00000003\.pt"):
        restore(tmp_path, TrainState(*network), 10, ALONE)


def test_what_would_unpack_to_more_than_it_is_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, {"step": 1, "zeros": torch.zeros(1_000_000)}, keep=1)
    load_checkpoint(path)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    assert path.stat().st_size < 100_000
    with pytest.raises(CheckpointError, match=r"step_00000001\.pt: is compressed, as no checkpoint of PyTorch is"):
        load_checkpoint(path)
