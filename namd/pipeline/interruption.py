"""Requests from outside to stop: Ctrl-C, a closed terminal, SIGTERM. All end with a checkpoint.

Bodies listen for SIGTERM alone, so the others become one, and what it was at first is remembered.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any

STOPPED = 143
"""Exit code of a command that was stopped and can be continued, whatever the signal."""

_REASONS = {
    signal.SIGINT: "interrupted by Ctrl-C",
    signal.SIGHUP: "interrupted by SIGHUP (a closed terminal)",
    signal.SIGTERM: "stopped by SIGTERM",
}
_first: list[signal.Signals] = []


def stop_reason() -> str:
    """Return in words which signal asked this process to stop; the first counts."""
    return _REASONS[_first[0] if _first else signal.SIGTERM]


@contextmanager
def interruptible() -> Iterator[None]:
    """Treat Ctrl-C and a closed terminal as SIGTERM, and that as SystemExit(143).

    A second Ctrl-C ends at once. SIGHUP that is ignored, as under nohup, stays so.
    """
    _first.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with ExitStack() as stack:
        stack.enter_context(_handling(signal.SIGTERM, _leave))
        stack.enter_context(_handling(signal.SIGINT, _pass_on))
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            stack.enter_context(_handling(signal.SIGHUP, _pass_on))
        yield


@contextmanager
def sheltered() -> Iterator[None]:
    """Let processes that are started within not hear SIGHUP: they end when this one says so.

    A terminal that is closed sends it to all of them, and they would be gone before a checkpoint.
    One that comes meanwhile is heard afterwards.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _handling(number: signal.Signals, handler: Any) -> Iterator[None]:  # noqa: ANN401 - as signal has it
    previous = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, previous)


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(STOPPED)


def _pass_on(number: int, _frame: FrameType | None) -> None:
    _first.append(signal.Signals(number))
    line = "stopping at the next checkpoint"
    if number == signal.SIGINT:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        line += "; Ctrl-C again stops at once"
    # Past Python's buffers, which this may have interrupted.
    with suppress(OSError):
        os.write(2, f"{line}\n".encode())
    os.kill(os.getpid(), signal.SIGTERM)
