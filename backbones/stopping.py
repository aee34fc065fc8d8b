"""Signals that ask a command to stop: Ctrl-C, a scheduler's SIGTERM, the SIGHUP of a closed terminal.

A command stops at once, training after its step: state is whole between steps, and is saved there.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from backbones.errors import Stopped

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ENDING = 5.0  # seconds after a stop in which others are the same one
_IMPATIENT = 1.0  # seconds after which a second Ctrl-C is the user's, and not the same one passed on by a launcher


@contextmanager
def stoppable() -> Iterator[None]:
    """Lets a signal raise Stopped within this context, where it does not have a handler of its own.

    Others that come while all ends, as where terminal and launcher send each its own, change nothing.
    """
    stopped = -_ENDING

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        now = time.monotonic()
        if now - stopped > _ENDING:
            stopped = now
            raise Stopped(number)

    with _handled(stop, only_default=True):
        yield


class StopRequests:
    """Signals that came while they were put off. Made by `put_off_stops`.

    Args:
        says: whether to tell the user that the first one was understood.

    Attributes:
        number: of the first signal; None until one comes.
    """

    def __init__(self, says: bool):
        self.number: int | None = None
        self._says, self._since = says, 0.0
        self._at_once, self._steps = False, 0

    @contextmanager
    def at_once(self, steps: int) -> Iterator[None]:
        """For what can be left at any time, after `steps` steps: signals raise Stopped, as does one that waits."""
        self._at_once, self._steps = True, steps
        try:
            if self.number is not None:
                raise Stopped(self.number, steps)
            yield
        finally:
            self._at_once = False

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        first = self.number is None
        if first:  # noted in any case: what is raised within a destructor goes no further
            self.number, self._since = number, now
        if self._at_once:
            raise Stopped(number, self._steps)
        if not first and number == signal.SIGINT and now - self._since > _IMPATIENT:
            raise Stopped(number)
        if first and self._says:  # not by print, which the signal may have interrupted
            once_more = " (once more: at once, without saving)" if number == signal.SIGINT else ""
            text = f"\n{signal.Signals(number).name}: saves after this step, then stops{once_more}\n"
            with suppress(OSError, ValueError, AttributeError):  # a closed terminal, a notebook
                os.write(sys.stderr.fileno(), text.encode())


@contextmanager
def put_off_stops(*, says: bool = True) -> Iterator[StopRequests]:
    """Signals within this context wait until someone looks for them; a second Ctrl-C raises Stopped all the same."""
    requests = StopRequests(says)
    with _handled(requests._receive, only_default=False):
        yield requests


def ignore_stops() -> None:
    """For a process that is about to end: a signal would only take its exit code."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None], *, only_default: bool) -> Iterator[None]:
    """Gives signals a handler in this process; in those that it forks they do what they do by default.

    Those that are ignored stay so (`nohup`). Without effect in a thread, where Python allows no handlers.
    """
    owner = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            handler(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    defaults = (signal.SIG_DFL, signal.default_int_handler)
    earlier = {number: signal.getsignal(number) for number in _SIGNALS}
    wanted = [
        number
        for number, before in earlier.items()
        if before in defaults or (not only_default and before not in (signal.SIG_IGN, None))
    ]
    for number in wanted:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in wanted:
            signal.signal(number, earlier[number])
