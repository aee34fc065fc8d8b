"""Signals: at once where nothing would be lost, put off where something would."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from backbones import stopping
from backbones.errors import Stopped
from backbones.stopping import put_off_stops, stoppable


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Those that a shell's background job would ignore are there, and are as they were afterwards."""
    earlier = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in earlier.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_at_once_and_says_which_it_was(number: int) -> None:
    with pytest.raises(Stopped, match=f"^interrupted by {signal.Signals(number).name}$") as stopped, stoppable():
        send(number)
    assert stopped.value.number == number
    assert isinstance(stopped.value, KeyboardInterrupt)  # no `except Exception` takes it for an error


def test_handlers_are_as_before_afterwards() -> None:
    with stoppable(), put_off_stops():
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("around", [stoppable, put_off_stops])
def test_what_nohup_ignores_stays_ignored(around: type[stoppable]) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with around():
        send(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_waits(number: int, capfd: pytest.CaptureFixture) -> None:
    with stoppable(), put_off_stops() as stops:
        assert stops.number is None
        send(number)
        send(number)  # a launcher passes on what the terminal has sent already
        assert stops.number == number
    said = capfd.readouterr().err
    assert said.count("saves after this step, then stops") == 1
    assert ("once more" in said) == (number == signal.SIGINT)


def test_only_the_main_process_says_so(capfd: pytest.CaptureFixture) -> None:
    with put_off_stops(says=False) as stops:
        send(signal.SIGTERM)
        assert stops.number == signal.SIGTERM
    assert capfd.readouterr().err == ""


def test_a_second_ctrl_c_of_an_impatient_user_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 10.9, 11.1])
    monkeypatch.setattr(stopping.time, "monotonic", lambda: next(clock))
    with put_off_stops():
        send(signal.SIGINT)
        send(signal.SIGINT)
        with pytest.raises(Stopped):
            send(signal.SIGINT)


def test_a_second_sigterm_is_no_impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 20.0])
    monkeypatch.setattr(stopping.time, "monotonic", lambda: next(clock))
    with put_off_stops() as stops:
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        assert stops.number == signal.SIGTERM


def test_the_same_stop_again_changes_nothing_while_all_ends() -> None:
    with pytest.raises(Stopped, match="SIGTERM"), stoppable():  # noqa: PT012
        try:
            send(signal.SIGTERM)
        finally:
            send(signal.SIGTERM)
            send(signal.SIGINT)


def test_a_terminal_that_is_gone_takes_no_step_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(descriptor: int, text: bytes) -> int:
        raise OSError(5, "Input/output error")

    with put_off_stops() as stops:
        monkeypatch.setattr(stopping.os, "write", gone)
        send(signal.SIGHUP)
        monkeypatch.undo()
        assert stops.number == signal.SIGHUP


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_in_a_destructor_is_not_forgotten() -> None:
    class Dying:
        def __del__(self) -> None:
            send(signal.SIGTERM)

    with put_off_stops() as stops, stops.at_once(3):
        dying = Dying()
        del dying  # Python says of what is raised there that it is ignored
    assert stops.number == signal.SIGTERM


def test_what_can_be_left_at_any_time_is() -> None:
    with put_off_stops() as stops, pytest.raises(Stopped, match="SIGTERM after step 7"), stops.at_once(7):
        send(signal.SIGTERM)
    with put_off_stops() as stops:
        send(signal.SIGHUP)
        with pytest.raises(Stopped, match="SIGHUP after step 7"), stops.at_once(7):
            raise AssertionError("one that has been waiting is not waited for again")


def test_a_process_that_was_forked_ends_as_processes_do() -> None:
    """A pool that ends its workers by SIGTERM does not want tracebacks of them."""
    with stoppable():
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


def test_other_threads_do_without() -> None:
    seen = []

    def work() -> None:
        with stoppable(), put_off_stops() as stops:
            seen.append(stops.number)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_command_leaves_with_the_signal_s_exit_code(number: int, code: int) -> None:
    program = (
        "import os, signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from backbones.cli import run_command\n"
        "def work(): os.kill(os.getpid(), int(os.environ['NUMBER']))\n"
        "run_command(work, argv=[])"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"NUMBER": str(int(number))}, capture_output=True, text=True
    )
    assert (finished.returncode, finished.stderr) == (code, f"interrupted by {signal.Signals(number).name}\n")
