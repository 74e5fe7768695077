"""The files that Ray leaves after a session, and its log, which does not belong on a terminal.

A dead process is one line of ours; Ray's messages about it go to a file.
"""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ray._private.worker

from namd.config.errors import InputError, StageError
from namd.distributed.local_ray import RAY_FOLDER

_EXPECTED = (InputError, StageError, SystemExit, KeyboardInterrupt)


@dataclass
class RayFiles:
    """A session's folder, of mode 0700.

    Attributes:
        folder: The folder; removed at the end of the session.
        kept: Whether to keep it for diagnosis.
    """

    folder: Path
    kept: bool = False

    @property
    def log(self) -> Path:
        """Ray's log of this process; absent if it is empty."""
        return self.folder / "ray.log"

    @property
    def temporary(self) -> Path:
        """The folder of a cluster that is started here."""
        return self.folder / RAY_FOLDER


@contextmanager
def ray_files(folder: Path) -> Iterator[RayFiles]:
    """Keep Ray's log in a folder, which is kept after an unexpected error.

    Args:
        folder: Of mode 0700, with a path that is short enough if a cluster is started here.
    """
    files = RayFiles(folder)
    try:
        with _logged(files.log):
            yield files
    except _EXPECTED:
        raise
    except BaseException:
        files.kept = True
        raise
    finally:
        if not files.kept:
            shutil.rmtree(files.folder, ignore_errors=True)


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Send Ray's log of this process to a file, not to stdout or stderr."""
    logger = logging.getLogger("ray")
    handlers, prints = logger.handlers[:], ray._private.worker._worker_logs_enabled
    log = logging.FileHandler(path, delay=True)
    log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger.handlers[:] = [log]
    # Ray prints its raylet's reports of dead workers even with log_to_driver=False.
    ray._private.worker._worker_logs_enabled = False
    try:
        yield
    finally:
        logger.handlers[:] = handlers
        ray._private.worker._worker_logs_enabled = prints
        log.close()
