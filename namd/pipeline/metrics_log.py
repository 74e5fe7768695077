"""The measurements of a stage while it is built, kept across killed attempts."""

import json
import math
from pathlib import Path
from typing import Any

from namd.methods.base import Step


class MetricsLog:
    """Lines of metrics, on disk as they come.

    A body that resumes from a checkpoint repeats some steps; its first step says from where, and
    the lines from there on are dropped, so that the log reads as if it had never been killed.

    Args:
        path: Where the lines are kept meanwhile; None: in memory.
        renumber: Count the lines of a family's member by themselves: its step in a body's count
            depends on which members were missing, and an artifact must not.
    """

    def __init__(self, path: Path | None = None, renumber: bool = False) -> None:
        self.path = path
        self.renumber = renumber
        self.lines: list[dict[str, Any]] = _read(path) if path is not None else []
        self._resumed = not self.lines

    def add(self, step: Step) -> None:
        """Append what a step measured; a step without metrics leaves no line."""
        if not self._resumed:
            self._resumed = True
            self.lines = [line for line in self.lines if line["index"] < step.index]
            self._rewrite()
        if not step.metrics:
            return
        index = len(self.lines) + 1 if self.renumber else step.index
        self.lines.append({"index": index, **_finite(step)})
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(self.lines[-1]) + "\n")

    def text(self) -> str:
        """Return all lines as JSON Lines."""
        return "".join(json.dumps(line) + "\n" for line in self.lines)

    def _rewrite(self) -> None:
        if self.path is not None:
            partial = self.path.with_suffix(".partial")
            partial.write_text(self.text(), encoding="utf-8")
            partial.replace(self.path)


def _finite(step: Step) -> dict[str, float | None]:
    """JSON knows no NaN: a metric that is not finite is written as null."""
    values = {name: float(value) for name, value in step.metrics.items()}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _read(path: Path) -> list[dict[str, Any]]:
    """Read the lines that a killed writer completed."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    lines = []
    for line in text.splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines
