"""What a parser may do with an input: take it, or refuse it with an error for the user. All else is a finding."""

import resource
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backbones.errors import UserError

_MEBIBYTE = 2**20
_OURS = ("backbones", "detection")
_PROJECT = Path(__file__).parents[2]


class TookTooLong(BaseException):
    """Raised in the middle of a parser. No `Exception`: that, parsers may catch."""


@dataclass(frozen=True)
class Finding:
    """What is wrong with how an input was treated.

    Args:
        kind: the same for inputs that find the same: what happened, and where in our code.
        text: a traceback, or how long it took or how much memory.
    """

    kind: str
    text: str


def judge(
    run: Callable[[bytes], Any], data: bytes, *, mebibytes: int, seconds: float = 5, names: str | None = None
) -> Finding | None:
    """Gives an input to a parser.

    Args:
        run: the parser.
        data: the input.
        mebibytes: by how much the process may grow.
        seconds: of the processor's time, whatever else the machine does.
        names: what the message of an error has to name: the file.

    Returns:
        None, if the parser took it, or refused it with an error for the user, in time and without taking much memory.
    """
    _forget_peak()
    before, started = _peak(), resource.getrusage(resource.RUSAGE_SELF)
    finding = None
    try:
        with _limited(seconds), _quiet():
            run(data)
    except UserError as error:
        if names is not None and names not in str(error):
            finding = Finding(f"a message that does not name the file, {_place(error)}", f"{error}")
    except SystemExit as error:  # a command: 2 is what the user has to mend
        if error.code not in (0, 2, None):
            cause = error.__context__ or error
            finding = Finding(f"exit code {error.code}: {type(cause).__name__}, {_place(cause)}", _text(cause))
    except TookTooLong as error:
        finding = Finding(f"more than {seconds:g} s, {_place(error)}", _text(error))
    except Exception as error:
        finding = Finding(f"{type(error).__name__}, {_place(error)}", _text(error))
    used, grown = resource.getrusage(resource.RUSAGE_SELF), _peak() - before
    took = used.ru_utime + used.ru_stime - started.ru_utime - started.ru_stime
    if finding is None and grown > mebibytes * _MEBIBYTE:
        finding = Finding(f"more than {mebibytes} MiB", f"{grown / _MEBIBYTE:.0f} MiB for {len(data):,} bytes")
    if finding is None and took > seconds:
        finding = Finding(f"more than {seconds:g} s", f"{took:.1f} s for {len(data):,} bytes")
    return finding


@contextmanager
def limited_memory(mebibytes: int) -> Iterator[None]:
    """Lets the process take no more than so much on top of what it has: others use this machine too."""
    old = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + mebibytes * _MEBIBYTE
    resource.setrlimit(resource.RLIMIT_AS, (limit, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, old)


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raises TookTooLong after so much of the processor's time, and again each second, should it get lost."""

    def stop(number: int, frame: Any) -> None:
        raise TookTooLong

    earlier = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, earlier)


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(action="ignore"):
        yield


def _forget_peak() -> None:
    with suppress(OSError):  # the peak then is that of the process' life
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """The most memory that the process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _place(error: BaseException) -> str:
    """The innermost line of our code that an error went through: without its number, which changes with each edit."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(_PROJECT)
        and Path(frame.filename).relative_to(_PROJECT).parts[0] in _OURS
    ]
    if not frames:
        return "not in our code"
    return f"{Path(frames[-1].filename).relative_to(_PROJECT)} in {frames[-1].name}: {frames[-1].line}"


def _text(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))[-4000:]
