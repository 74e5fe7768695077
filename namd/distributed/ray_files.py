"""Files that Ray leaves behind a session, and what it says, which is nothing for a terminal.

A process that died is a line of ours; Ray's account of it goes to a file.
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
        folder: It goes with the session.
        kept: Unless somebody may want to read in it.
    """

    folder: Path
    kept: bool = False

    @property
    def log(self) -> Path:
        """What Ray said in this process; absent if it said nothing."""
        return self.folder / "ray.log"

    @property
    def temporary(self) -> Path:
        """Where a cluster that is started here keeps its own files."""
        return self.folder / RAY_FOLDER


@contextmanager
def ray_files(folder: Path) -> Iterator[RayFiles]:
    """Keep Ray's words in a folder, which stays after an error that is not one line for the user.

    Args:
        folder: Of mode 0700, with a name that is short enough if a cluster is started here.
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
    """Send what Ray says in this process to a file, and not to stdout or stderr."""
    logger = logging.getLogger("ray")
    handlers, prints = logger.handlers[:], ray._private.worker._worker_logs_enabled
    log = logging.FileHandler(path, delay=True)
    log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger.handlers[:] = [log]
    # It prints what its raylet reports of dead workers even with log_to_driver=False.
    ray._private.worker._worker_logs_enabled = False
    try:
        yield
    finally:
        logger.handlers[:] = handlers
        ray._private.worker._worker_logs_enabled = prints
        log.close()
