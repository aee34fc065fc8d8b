"""Loading processes that are killed, or stopped with all others, change nothing: every batch comes, in its bits."""

import errno
import faulthandler
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from backbones.data.loader import in_a_thread, shared_empty, training_batches
from backbones.data.loader import testing_batches as batches_for_tests
from backbones.data.sampler import SampleKey, StepSampler
from backbones.data.workers import LoadingProcess
from backbones.errors import DataError, UserError

SHARED_MEMORY = Path("/dev/shm")
Made = tuple[Tensor, list[int], int]


def load(keys: list[SampleKey]) -> Made:
    """A batch, and the process that made it."""
    pictures = shared_empty((len(keys), 3, 32, 32), torch.uint8)
    for place, key in enumerate(keys):
        generator = torch.Generator().manual_seed(key.seed % 2**63)
        pictures[place] = torch.randint(0, 256, (3, 32, 32), generator=generator, dtype=torch.uint8)
    return pictures, [key.index for key in keys], os.getpid()


def batches(workers: int, steps: int = 30, load: Callable[[list[SampleKey]], Any] = load) -> Iterator[Any]:
    sampler = StepSampler(90, batch_size=8, accumulate=1, start_step=0, steps=steps, seed=7, rank=0, world_size=1)
    return training_batches(load, sampler, workers=workers, pin_memory=False)


def same(ours: list[Made], theirs: list[Made]) -> bool:
    return all(torch.equal(a, b) and keys == others for (a, keys, _), (b, others, _) in zip(ours, theirs, strict=True))


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No process, no zombie, no shared memory, no socket, no open file."""
    folders: list[str] = []
    make_folder = tempfile.mkdtemp

    def make(**options: Any) -> str:
        folders.append(make_folder(**options))
        return folders[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", make)
    files = len(os.listdir("/proc/self/fd"))
    yield
    assert not any(map(os.path.exists, folders))
    assert multiprocessing.active_children() == []
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert list(SHARED_MEMORY.glob(f"torch_{os.getpid()}_*")) == []
    assert len(os.listdir("/proc/self/fd")) == files


def test_killed_processes_change_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    alone, helped, makers = list(batches(0)), [], set()
    for place, (pictures, keys, maker) in enumerate(batches(2)):
        helped.append((pictures.clone(), keys, maker))
        makers.add(maker)
        if place in (0, 9, 10, 25):
            os.kill(maker, signal.SIGKILL)
    assert same(alone, helped)
    assert os.getpid() not in makers
    said = capsys.readouterr().out.splitlines()
    assert 2 <= len(said) <= 4
    assert all(line.startswith("a loading process was killed (signal 9; too little memory?): loading") for line in said)
    assert len(makers) >= 2 + len(said)
    for maker in makers:
        assert list(SHARED_MEMORY.glob(f"torch_{maker}_*")) == []


def test_processes_of_tests_are_replaced_too() -> None:
    def double(index: int) -> tuple[int, int]:
        return 2 * index, os.getpid()

    seen = []
    for batch in batches_for_tests(double, [5, 3, 9, 1, 7, 2, 8, 6], batch_size=3, workers=2, collate=list):
        seen += [value for value, _ in batch]
        if len(seen) == 3:
            os.kill(batch[0][1], signal.SIGKILL)
    assert seen == [10, 6, 18, 2, 14, 4, 16, 12]


def test_killed_in_the_midst_of_an_answer() -> None:
    """More than fits on the line: the process hangs in writing it, and the reader has the first part of it."""

    def load_much(keys: list[SampleKey]) -> tuple[bytes, int]:
        return bytes([keys[0].index]) * 3_000_000, os.getpid()

    made = batches(2, 8, load_much)
    seen = [next(made)]
    time.sleep(0.1)  # both write
    for process in multiprocessing.active_children():
        os.kill(process.pid or 0, signal.SIGKILL)
    seen += made
    assert [data for data, _ in seen] == [data for data, _ in batches(0, 8, load_much)]


@pytest.mark.parametrize(
    ("number", "words"), [(signal.SIGKILL, "signal 9; too little memory"), (signal.SIGBUS, "signal 7; /dev/shm full")]
)
def test_who_is_killed_again_and_again_is_given_up(
    number: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def load_too_much(keys: list[SampleKey]) -> int:
        with (tmp_path / "log").open("a") as log:
            log.write(f"{os.getpid()}\n")
        faulthandler.disable()
        if (tmp_path / "log").read_text().count("\n") > 5:
            os.kill(os.getpid(), number)
        return 1

    made = batches(1, 20, load_too_much)
    assert [next(made) for _ in range(5)] == [1] * 5
    with pytest.raises(UserError, match=f"killed 4 times in a row at batch 5 .{words}.*fewer --train.workers"):
        next(made)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3
    assert all(line.endswith("loading starts anew at batch 5") for line in said)


def test_kills_with_progress_between_are_not_counted_together() -> None:
    count = 0
    for _, _, maker in batches(1, 12):
        count += 1
        os.kill(maker, signal.SIGKILL)
    assert count == 12


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_stops_all_processes_does_not_stop_loading(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    makers = set()
    helped = []
    for pictures, keys, maker in batches(2):
        helped.append((pictures.clone(), keys, maker))
        makers.add(maker)
        os.kill(maker, number)
    assert same(list(batches(0)), helped)
    assert len(makers) == 2
    assert capsys.readouterr().out == ""


def test_handlers_of_the_training_process_are_its_own() -> None:
    """They run in no loading process, not even in one that is hit as it begins."""
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(os.getpid()))
    try:
        made = batches(2)
        next(made)
        os.kill(os.getpid(), signal.SIGTERM)
        assert len(list(made)) == 29
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [os.getpid()]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) & {signal.SIGINT, signal.SIGTERM, signal.SIGHUP} == set()


def test_leaving_early_is_quick() -> None:
    def load_slowly(keys: list[SampleKey]) -> int:
        time.sleep(60 * (keys[0] != first))
        return 1

    first = next(
        iter(StepSampler(90, batch_size=8, accumulate=1, start_step=0, steps=1, seed=7, rank=0, world_size=1))
    )[0]
    start = time.monotonic()
    for _ in batches(2, 30, load_slowly):
        break
    assert time.monotonic() - start < 2
    assert multiprocessing.active_children() == []


def is_alive(process: int) -> bool:
    try:
        return (
            Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "Z"
        )  # whose parent is slow to hear it
    except OSError:
        return False


def begin_and_leave(leave: Callable[[], None], makers: Any) -> None:
    """A training process that leaves while its loading processes are stuck in a picture."""
    made = batches_for_tests(
        lambda index: time.sleep(60 * (index > 1)) or os.getpid(), range(9), batch_size=1, workers=2, collate=list
    )
    makers.send([next(made)[0], next(made)[0]])
    leave()


@pytest.mark.parametrize(
    "leave",
    [lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: os._exit(0), sys.exit],
    ids=["kill", "_exit", "exit"],
)
def test_nobody_outlives_the_training_process(leave: Callable[[], None]) -> None:
    reader, writer = multiprocessing.Pipe(duplex=False)
    trainer = multiprocessing.get_context("fork").Process(target=begin_and_leave, args=(leave, writer))
    trainer.start()
    makers = reader.recv()
    trainer.join(5)
    deadline = time.monotonic() + 5
    while trainer.is_alive() or any(map(is_alive, makers)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    trainer.close()
    reader.close()
    writer.close()


def test_the_program_ends_in_the_midst_of_loading() -> None:
    script = """
from backbones.data.loader import testing_batches
made = testing_batches(str, range(900), batch_size=1, workers=2, collate=list)
print(next(made)[0])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


class OddError(Exception):
    """One that can't be sent as it is."""

    def __init__(self, first: str, second: str):
        super().__init__(f"{first} {second}")


def test_a_machine_that_begins_no_more_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    begin, begun = LoadingProcess.start, []

    def begin_one(process: LoadingProcess) -> None:
        if begun:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        begun.append(1)
        begin(process)

    monkeypatch.setattr(LoadingProcess, "start", begin_one)
    with pytest.raises(UserError, match=r"can't be begun .Resource temporarily unavailable.*--train.workers"):
        next(batches(2))


def test_no_room_for_what_is_handed_over() -> None:
    def load_some(index: int) -> int:
        raise RuntimeError(
            "unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device (28)"
        )

    with pytest.raises(UserError, match=r"/dev/shm: no room .*--shm-size.*--train.workers"):
        list(batches_for_tests(load_some, range(2), batch_size=1, workers=1, collate=list))


@pytest.mark.parametrize("error", [DataError("x.jpg: damaged"), PermissionError(13, "no", "x.jpg"), OddError("a", "b")])
def test_an_error_comes_in_its_turn_and_as_it_was(error: Exception) -> None:
    def load_some(index: int) -> int:
        if index == 7:
            raise error
        return index

    with pytest.raises(type(error)) as caught:
        list(batches_for_tests(load_some, range(20), batch_size=1, workers=0, collate=list))
    assert caught.value is error
    made = batches_for_tests(load_some, range(20), batch_size=2, workers=2, collate=list)
    assert list(islice(made, 3)) == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises((type(error), RuntimeError)) as caught:
        next(made)
    if isinstance(error, OddError):
        assert (type(caught.value), str(caught.value)) == (RuntimeError, "OddError: a b")
    else:
        assert (type(caught.value), str(caught.value)) == (type(error), str(error))
        assert getattr(caught.value, "filename", None) == getattr(error, "filename", None)
    assert "in load_some" in caught.value.__notes__[-1]


def test_in_a_thread() -> None:
    begun: list[tuple[str, int]] = []

    def numbers() -> Iterator[int]:
        yield from range(6)
        raise DataError("x.jpg: damaged")

    def begin(argument: str) -> None:
        begun.append((argument, threading.get_ident()))

    def change(number: int) -> tuple[int, int]:
        return number * 10, threading.get_ident()

    made = in_a_thread(change, numbers(), begin, "device 1")
    seen = list(islice(made, 6))
    assert [value for value, _ in seen] == [0, 10, 20, 30, 40, 50]
    ((said, thread),) = begun
    assert said == "device 1"
    assert {made_in for _, made_in in seen} == {thread} != {threading.get_ident()}
    with pytest.raises(DataError, match="damaged"):
        next(made)


def test_nothing_comes_after_what_a_thread_could_not_change() -> None:
    def change(number: int) -> int:
        if number == 3:
            raise RuntimeError("out of pinned memory")
        return number

    made = in_a_thread(change, iter(range(6)), lambda argument: None, None)
    assert list(islice(made, 3)) == [0, 1, 2]
    with pytest.raises(RuntimeError, match="pinned"):
        next(made)
    assert list(made) == []


def test_a_stop_in_the_middle_of_a_beginning_leaves_no_process() -> None:
    """The signal waits until it is known how to end the new process; else this one would wait for it in the end."""
    program = (
        "import os, signal\n"
        "from backbones.cli import run_command\n"
        "from backbones.data.loader import testing_batches\n"
        "from backbones.data.workers import LoadingProcess\n"
        "start = LoadingProcess.start\n"
        "def stopped(process):\n"
        "    start(process)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "LoadingProcess.start = stopped\n"
        "def load(): list(testing_batches(int, range(9), batch_size=1, workers=2, collate=list))\n"
        "run_command(load, argv=[])"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (finished.returncode, finished.stderr) == (143, "interrupted by SIGTERM\n")


class Trap:
    """A task that can't be received."""

    def __reduce__(self) -> tuple[Any, ...]:
        return fail, ()


def fail() -> None:
    raise MemoryError


def test_a_task_that_cannot_be_received_ends_its_process() -> None:
    made = batches_for_tests(str, [Trap()], batch_size=1, workers=1, collate=list)
    with pytest.raises(UserError, match="loading processes were killed 4 times in a row"):
        next(made)


def test_too_few_open_files_are_named() -> None:
    program = (
        "import resource, torch\n"
        "from backbones.cli import run_command\n"
        "from backbones.data.loader import testing_batches\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))\n"
        "def tensors(index): return [torch.zeros(9) for _ in range(150)]\n"
        "kept = []\n"
        "def load():\n"
        "    batches = testing_batches(tensors, range(9), batch_size=1, workers=1, collate=list)\n"
        "    for batch in batches: kept.append(batch)\n"
        "run_command(load, argv=[])"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert finished.returncode == 2
    assert "error: 200 open files at a time are too few" in finished.stderr


def test_a_stop_iteration_of_a_reader_is_an_error() -> None:
    def load(index: int) -> int:
        raise StopIteration

    with pytest.raises(RuntimeError, match="StopIteration"):
        list(batches_for_tests(load, range(3), batch_size=1, workers=0, collate=list))


def test_more_files_than_a_line_holds() -> None:
    """Tasks and answers that are larger than what a line takes at a time, both at once."""
    tasks = list(range(400_000))
    lengths = [len(data) for data in batches_for_tests(str, tasks, batch_size=100_000, workers=1, collate="".join)]
    assert lengths == [sum(len(str(i)) for i in tasks[f : f + 100_000]) for f in range(0, 400_000, 100_000)]
