"""What becomes of stdout and stderr if they are no longer read.

A study outlives its terminal: work goes on in silence. A command that only shows something ends.
"""

import errno
import io
import os
import sys
from typing import Any, TextIO

from namd.config.errors import StageError

_GONE = frozenset({errno.EPIPE, errno.EIO})
"""A pipe without a reader; a terminal that was closed."""

_STDOUT = 1


class UnreadError(BrokenPipeError):
    """A command's output is no longer read."""


class LastingFile(io.FileIO):
    """A file descriptor whose reader may go away: then nothing is written any more.

    Attributes:
        shows: Whether what is written here is all that there is to do: then UnreadError is raised.
    """

    shows = False

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - any buffer
        """Write what the system takes; pretend that all was written once the reader has gone.

        Raises:
            UnreadError: It has, and nothing else is left to do.
            StageError: A result cannot be written, as on a full disk. Progress is not worth it.
        """
        try:
            return super().write(data) or 0
        except OSError as error:
            # Also libraries and child processes that write there by themselves fall silent.
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, self.fileno())
            os.close(silence)
            if error.errno not in _GONE and self.fileno() == _STDOUT:
                raise StageError(f"stdout cannot be written ({error.strerror})") from error
            if self.shows:
                raise UnreadError(errno.EPIPE, os.strerror(errno.EPIPE)) from error
        return memoryview(data).nbytes


def install() -> None:
    """Put lasting streams in the place of stdout and stderr."""
    sys.stdout = _lasting(sys.stdout)
    sys.stderr = _lasting(sys.stderr)


def end_if_unread(shows: bool) -> None:
    """Say whether a command that only shows something should end once its output is not read."""
    for stream in (sys.stdout, sys.stderr):
        raw = getattr(getattr(stream, "buffer", None), "raw", None)
        if isinstance(raw, LastingFile):
            raw.shows = shows


def _lasting(stream: TextIO | None) -> TextIO:
    if not isinstance(stream, io.TextIOWrapper):
        # Python has no stream if the descriptor was closed before it started.
        return stream or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123
    stream.flush()
    raw = LastingFile(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
