"""How long the demo takes on this machine as it is now, from a second's measurement.

Once stages are built, `namd.study.eta` estimates better, from their own pace.
"""

import threading
import time
import zlib
from collections.abc import Callable
from random import Random

ROUNDS = 24
QUIET_PROBE_S = 0.85
"""What a probe takes on a core that does nothing else, of the machine the demo was timed on."""

CORE_SECONDS = 960.0
"""What the demo takes of such cores: seven to nine minutes of two."""

LONGEST_PATH_S = 360.0
"""What it takes on any number of them: cohort, one trial from end to end, and the report."""


def demo_seconds(cores: float, slowness: float) -> float:
    """Return about how many seconds the demo takes.

    Args:
        cores: That it may use.
        slowness: How many times longer such a core takes than a quiet one (see `slowness_of`).
    """
    return max(CORE_SECONDS / max(1.0, cores), LONGEST_PATH_S) * slowness


def slowness_of(cores: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return how many times longer work takes here than where the demo was timed.

    As many probes run side by side as the demo has cores, so that what others run on these, and a
    core that is slower, both count.
    """
    content = bytes(byte & 15 for byte in Random(0).randbytes(1 << 20))
    threads = [threading.Thread(target=_probe, args=(content,)) for _ in range(max(1, cores))]
    began = clock()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return max(0.1, (clock() - began) / QUIET_PROBE_S)


def _probe(content: bytes) -> None:
    # zlib lets other threads run meanwhile: the probes share no lock.
    for _ in range(ROUNDS):
        zlib.compress(content, 6)
