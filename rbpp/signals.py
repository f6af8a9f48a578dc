"""How the process ends when it is told to: one line, and the status that shells expect."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

DONE, CONDITION_HOLDS, REFUSED, INTERNAL_ERROR = 0, 1, 2, 3
INTERRUPTED, BROKEN_PIPE, TERMINATED = 130, 141, 143

EXIT_STATUSES = """\
exit status:
  0  done
  1  the condition of --fail-if holds, and nothing else
  2  input or option refused, in one line on standard error
  3  an error of rbpp's own, in one line; --traceback shows more
  130, 143, 141  interrupted, terminated, the reader of a pipe went away"""


class Terminated(BaseException):
    """The process was asked to end (SIGTERM)."""


# Signal to what it raises, what is said of it, and the status of the process.
_STOPS: dict[int, tuple[type[BaseException], str, int]] = {
    signal.SIGINT: (KeyboardInterrupt, "interrupted", INTERRUPTED),
    signal.SIGTERM: (Terminated, "terminated", TERMINATED),
}
_arrived: list[int] = []


def run_process(run: Callable[[], int]) -> NoReturn:
    """Run to the end of the process: signals end it in one line, wherever they arrive.

    The collector of garbage rests until `loaded`, and finds nothing to look at when the process
    ends: what is imported is never garbage, and looking for some in it took 0.8 s of CPU time.
    """
    gc.disable()
    for number in _STOPS:
        signal.signal(number, _stop)
    sys.unraisablehook = _unraisable  # what is raised while an object dies would be lost
    try:
        status = run()
    except (KeyboardInterrupt, Terminated) as stop:
        status = say_stopped(stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left to interrupt
    try:
        sys.stdout.flush()
    except OSError:
        silence_output()
        status = BROKEN_PIPE
    gc.freeze()
    sys.exit(status)


def loaded() -> None:
    """What takes long to import is there: collect garbage from here on, where that rests."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def say_stopped(stop: BaseException) -> int:
    """Print that the program was interrupted or terminated; its status."""
    word, status = next(
        (word, status) for kind, word, status in _STOPS.values() if isinstance(stop, kind)
    )
    with contextlib.suppress(OSError):
        print(f"rbpp: {word}", file=sys.stderr, flush=True)
    return status


def silence_output() -> None:
    """Send what is still to be printed nowhere: its reader has gone."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def raise_if_stopped(error: BaseException) -> None:
    """End as the signal that has arrived wants it, even if a library made another error of it.

    Raises:
        KeyboardInterrupt, Terminated: if such a signal has arrived.
    """
    if _arrived:
        raise _STOPS[_arrived[-1]][0] from error


def _stop(number: int, frame: Any) -> NoReturn:
    _arrived.append(number)
    stop = _STOPS[number][0]()
    while frame is not None:
        # Compiled modules abort where Python raises in them while they are imported.
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os._exit(say_stopped(stop))
        frame = frame.f_back
    raise stop


def _unraisable(found: Any) -> None:
    if isinstance(found.exc_value, KeyboardInterrupt | Terminated):
        os._exit(say_stopped(found.exc_value))
    sys.__unraisablehook__(found)
