"""How the process ends when it is told to: one line, and the status that shells expect."""

from __future__ import annotations

import contextlib
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


def run_process(run: Callable[[], int]) -> NoReturn:
    """Run to the end of the process: signals end it in one line, wherever they arrive."""
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _terminate)
    sys.unraisablehook = _unraisable  # what is raised while an object dies would be lost
    try:
        status = run()
    except KeyboardInterrupt:
        status = say_interrupted()
    except Terminated:
        status = say_terminated()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left to interrupt
    try:
        sys.stdout.flush()
    except OSError:
        silence_output()
        status = BROKEN_PIPE
    sys.exit(status)


def say_interrupted() -> int:
    """Print that the program was interrupted; its status."""
    with contextlib.suppress(OSError):
        print("rbpp: interrupted", file=sys.stderr, flush=True)
    return INTERRUPTED


def say_terminated() -> int:
    """Print that the program was terminated; its status."""
    with contextlib.suppress(OSError):
        print("rbpp: terminated", file=sys.stderr, flush=True)
    return TERMINATED


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
        raise (Terminated if _arrived[-1] == signal.SIGTERM else KeyboardInterrupt) from error


_arrived: list[int] = []


def _interrupt(number: int, frame: Any) -> NoReturn:
    _arrived.append(number)
    if _is_loading(frame):
        os._exit(say_interrupted())
    raise KeyboardInterrupt


def _terminate(number: int, frame: Any) -> NoReturn:
    _arrived.append(number)
    if _is_loading(frame):
        os._exit(say_terminated())
    raise Terminated


def _is_loading(frame: Any) -> bool:
    """Whether a module is being imported: compiled ones abort where Python raises in them."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _unraisable(found: Any) -> None:
    if isinstance(found.exc_value, KeyboardInterrupt):
        os._exit(say_interrupted())
    if isinstance(found.exc_value, Terminated):
        os._exit(say_terminated())
    sys.__unraisablehook__(found)
