"""Processes that load data beside the training: they outlast no stop of it, and may be killed themselves.

Each has a line of its own to the process that began it, and no lock is shared: whatever a killed one was about to do,
the others and the one that reads are not held up. What it was to load is loaded again by new ones, which give the same.
"""

import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from multiprocessing.reduction import ForkingPickler
from multiprocessing.util import Finalize
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any

import torch
import torch.multiprocessing  # how tensors are sent: as shared memory
from tqdm import tqdm

from backbones.errors import UserError

_TASKS_AHEAD = 2
"""How many a process is given at a time: it works on the second while the first is fetched."""

_LARGEST_PATIENCE = 3
"""How often in a row loading starts anew for the same batch."""

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def load_in_processes(load: Callable[[Any], Any], tasks: Iterable[Any], workers: int) -> Iterator[Any]:
    """`load(task)` of each task, in order.

    An error of `load` comes in its turn, with the traceback in that process as a note.

    Args:
        load: gives the same each time that it is called with a task.
        workers: how many processes; 1 or more.

    Raises:
        UserError: the processes were killed again and again, as for want of memory.
    """
    team = _Team(load, workers)
    try:
        for task in tasks:
            if len(team.under_way) < _TASKS_AHEAD * workers:
                team.send(task)
            else:
                yield team.exchange(task)
        while team.under_way:
            yield team.receive()
    finally:
        team.end()


def in_a_loading_process() -> bool:
    """Whether what is made now will be sent to another process."""
    return isinstance(multiprocessing.current_process(), LoadingProcess)


class LoadingProcess(ForkProcess):
    """Loads what it is sent, until the other end of its line is closed, if only by a death.

    Ctrl-C in a terminal, a closed terminal and the end of a batch job reach each process. It ignores them: the process
    that trains is to finish its step, and ends this one.

    Args:
        load: makes an answer of a task.
        folder: where it may leave files that the other end removes.
    """

    def __init__(self, load: Callable[[Any], Any], folder: str):
        super().__init__(daemon=True)
        self._load, self._folder = load, folder
        self._line, self._its_line = multiprocessing.Pipe()
        # Until it ignores them; and here until it is known how to end it.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        try:
            self.start()
            self._its_line.close()
            # At the exit of this process too, before `multiprocessing` asks its processes to end and waits for them.
            self.end = Finalize(None, self._end, exitpriority=0)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def send(self, task: Any) -> None:
        """Gives it a task; to one that was killed in vain, which `receive` will tell."""
        with suppress(OSError):
            self._line.send(task)

    def receive(self) -> tuple[Any, Exception | None]:
        """The answer to the earliest task that it was sent, or the error that was raised.

        Raises:
            ProcessKilledError: it is dead.
        """
        try:
            return self._line.recv()
        except (EOFError, OSError, RuntimeError) as error:  # or it was killed when it was about to hand over a tensor
            if "ancdata" in str(error) or "Too many open files" in str(error):  # a tensor is one, until it is let go
                raise _too_few_files() from error
            if isinstance(error, RuntimeError):
                raise
            self.join(5)
            if self.is_alive():
                raise
            raise ProcessKilledError(self.exitcode) from error

    def _end(self) -> None:
        self._line.close()
        self.kill()
        self.join(5)
        _remove_shared_memory(self.pid)
        if self.exitcode is not None:
            self.close()

    def run(self) -> None:
        """In the new process: loads."""
        for number in _STOPS:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
        self._line.close()
        sys.excepthook = _leave_quietly
        torch.set_num_threads(1)
        tempfile.tempdir = self._folder
        tasks: SimpleQueue = SimpleQueue()
        reader = Thread(target=_read, args=(self._its_line, tasks, self._folder), daemon=True)
        reader.start()
        with suppress(OSError):  # nobody is there to take it
            while True:
                self._its_line.send_bytes(_answer(self._load, tasks.get()))
        reader.join()  # it notices too, and ends this process when all is removed


class ProcessKilledError(Exception):
    """A loading process has ended by itself."""

    def __init__(self, exitcode: int | None):
        code = exitcode or 0  # where SIGCHLD is ignored, nobody is told
        how = f"signal {-code}" if code < 0 else f"exit code {exitcode}"
        reason = "/dev/shm full? docker run --shm-size" if exitcode == -signal.SIGBUS else "too little memory?"
        super().__init__(f"{how}; {reason}")


class _Team:
    """Several loading processes that take turns.

    Args:
        load: see `load_in_processes`.
        size: how many.
    """

    def __init__(self, load: Callable[[Any], Any], size: int):
        self._load, self._size = load, size
        self._delivered = 0
        self._deaths = 0
        self._folder = ""
        self._processes: list[LoadingProcess] = []
        self.under_way: deque[Any] = deque()
        self._begin()

    def _begin(self) -> None:
        # Where `multiprocessing` puts the sockets over which tensors go: who is killed leaves them. Their paths may
        # have no more than 107 bytes, which TMPDIR can use up.
        self._folder, self._processes = "", []
        try:
            self._folder = tempfile.mkdtemp(prefix="loading-", dir="/tmp" if os.access("/tmp", os.W_OK) else None)
            for _ in range(self._size):
                self._processes.append(LoadingProcess(self._load, self._folder))
        except BaseException as error:  # a signal too
            self.end()
            if not isinstance(error, OSError):
                raise
            raise UserError(
                f"{error.filename or 'loading processes'}: can't be begun ({error.strerror}): make room, or set fewer "
                "--train.workers (--workers)"
            ) from error
        for place, task in enumerate(self.under_way, self._delivered):
            self._processes[place % self._size].send(task)

    def send(self, task: Any) -> None:
        """Gives the next task to the process whose turn it is."""
        self._processes[(self._delivered + len(self.under_way)) % self._size].send(task)
        self.under_way.append(task)

    def receive(self) -> Any:
        """The answer to the earliest of the tasks under way."""
        while True:
            try:
                answer, error = self._processes[self._delivered % self._size].receive()
            except ProcessKilledError as death:
                self._begin_anew(death)
                continue
            self.under_way.popleft()
            self._delivered += 1
            self._deaths = 0
            if error is not None:
                raise error
            return answer

    def exchange(self, task: Any) -> Any:
        """As `receive`; gives its process the next task before the answer is used."""
        answer = self.receive()
        self.send(task)
        return answer

    def _begin_anew(self, death: ProcessKilledError) -> None:
        self.end()
        self._deaths += 1
        if self._deaths > _LARGEST_PATIENCE:
            raise UserError(
                f"loading processes were killed {self._deaths} times in a row at batch {self._delivered} ({death}): "
                "give more memory, or fewer --train.workers (--workers)"
            ) from death
        tqdm.write(f"a loading process was killed ({death}): loading starts anew at batch {self._delivered}")
        self._begin()

    def end(self) -> None:
        """Ends all processes; what they were doing is lost."""
        for process in self._processes:
            process.end()
        shutil.rmtree(self._folder, ignore_errors=True)


def _read(line: Connection, tasks: SimpleQueue, folder: str) -> None:
    """Takes tasks from the line at once, so that nobody waits who sends them."""
    try:
        while True:
            tasks.put(line.recv())
    except (EOFError, OSError):
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            _remove_shared_memory(os.getpid())
    finally:  # whatever it was: without this thread the process would never hear of an end
        os._exit(0)


def _remove_shared_memory(process: int | None) -> None:
    """That which a process was about to make: for a moment it has a name."""
    for path in Path("/dev/shm").glob(f"torch_{process}_*"):
        path.unlink(missing_ok=True)


def _leave_quietly(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Where the other process has gone, the thread that hands it tensors would show a traceback."""
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


def _answer(load: Callable[[Any], Any], task: Any) -> memoryview:
    """What `LoadingProcess.receive` gives back, as it is sent."""
    try:
        return ForkingPickler.dumps((load(task), None))
    except Exception as error:
        answer = _that_can_be_sent(error)
        if "unable to allocate shared memory" in str(error):
            answer = _no_room()
        elif "Too many open files" in str(error):
            answer = _too_few_files()
        answer.add_note(f"in a loading process:\n{traceback.format_exc()}")
        return ForkingPickler.dumps((None, answer))


def _no_room() -> UserError:
    return UserError(
        "/dev/shm: no room for what loading processes hand over: make it larger (docker run --shm-size 8g), or set "
        "fewer --train.workers (--workers), or 0"
    )


def _too_few_files() -> UserError:
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return UserError(
        f"{allowed} open files at a time are too few for what loading processes hand over: raise that (ulimit -n "
        "65536), or set fewer --train.workers (--workers)"
    )


def _that_can_be_sent(error: Exception) -> Exception:
    try:
        ForkingPickler.loads(ForkingPickler.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
