"""Asking a running training to save a checkpoint and leave: by SIGTERM, or by a call."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_REQUESTED = threading.Event()


def request_stop() -> None:
    """Ask the training of this process to save and leave; for the rest of the process.

    For trainings outside the main thread, which signals do not reach.
    """
    _REQUESTED.set()


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Listen inside this block; the function says whether a stop was requested.

    SIGTERM is heard in the main thread only.
    """
    told = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield _REQUESTED.is_set
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: told.set())
    try:
        yield lambda: told.is_set() or _REQUESTED.is_set()
    finally:
        signal.signal(signal.SIGTERM, previous)
