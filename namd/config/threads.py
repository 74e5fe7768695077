"""The number of threads of arithmetic. Results depend on it, so a configuration fixes it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from threadpoolctl import threadpool_limits

from namd.config.cpus import available_cpus

_OUTSIDE: ContextVar[int | None] = ContextVar("threads outside fixed_threads", default=None)


@contextmanager
def fixed_threads(count: int) -> Iterator[None]:
    """Compute with exactly `count` threads per operation inside this block, then as before.

    Holds for BLAS, for OpenMP and for torch if it is imported already; torch is not imported
    here. A count above the machine's cores is slow but gives the same result.
    """
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch is not None else None
    token = _OUTSIDE.set(before if _OUTSIDE.get() is None else _OUTSIDE.get())
    with threadpool_limits(count):
        if torch is not None:
            torch.set_num_threads(count)
        try:
            yield
        finally:
            if torch is not None:
                torch.set_num_threads(before)
            _OUTSIDE.reset(token)


def spare_threads() -> int:
    """Return how many threads whole batches may share: those that the process started with.

    Never more than the cores that it may use, which torch does not check. Only for work whose
    result does not depend on the number.
    """
    outside = _OUTSIDE.get()
    if outside is None:
        torch = sys.modules.get("torch")
        outside = torch.get_num_threads() if torch is not None else 1
    return min(outside, available_cpus())
