"""Checkpoints of one training on disk: written whole or not at all, read without pickle."""

import os
from pathlib import Path
from typing import Any

import torch

from namd.config.errors import InputError
from namd.train.workers import World
from namd.train.world import LocalWorld, leaders_word, wait_for_all


class Checkpoints:
    """The checkpoints of one stage in one folder; the newest is the one to resume from.

    Every rank keeps its own file (its dropout state is its own); the shared state is rank 0's and
    is written last, so that a checkpoint with a shared state is whole.
    """

    def __init__(self, folder: Path, world: World | None = None) -> None:
        self.folder = folder
        self.world: World = world or LocalWorld()
        self.rank = self.world.rank

    def save(self, step: int, shared: dict[str, Any], own: dict[str, Any]) -> None:
        """Write the state after `step` optimiser steps, then remove all but the last two."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write(self._own_path(step, self.rank), own)
        wait_for_all(self.world)
        if self.rank == 0:
            self._write(self._shared_path(step), shared)
            for old in self._steps()[:-2]:
                self._remove(old)

    def load(self) -> tuple[int, dict[str, Any], dict[str, Any] | None] | None:
        """Return (step, shared state, this rank's) of the newest whole checkpoint, or None.

        All ranks read the same step. A rank that had no part in it has no state of its own.
        """
        step = leaders_word(self.newest(), self.world)
        if not step:
            return None
        own = self._own_path(step, self.rank)
        shared = self._read(self._shared_path(step))
        return step, shared, self._read(own) if own.is_file() else None

    def newest(self) -> int:
        """Return the step of the newest whole checkpoint; 0: there is none."""
        return max(self._steps(), default=0)

    def _steps(self) -> list[int]:
        return sorted(int(p.stem.split("-")[1]) for p in self.folder.glob("shared-*.pt"))

    def _shared_path(self, step: int) -> Path:
        return self.folder / f"shared-{step}.pt"

    def _own_path(self, step: int, rank: int) -> Path:
        return self.folder / f"rank{rank}-{step}.pt"

    def _remove(self, step: int) -> None:
        for path in (self._shared_path(step), *self.folder.glob(f"rank*-{step}.pt")):
            path.unlink(missing_ok=True)

    def _write(self, path: Path, state: dict[str, Any]) -> None:
        # A worker that was taken for dead may still be writing the same checkpoint.
        partial = path.with_suffix(f".{os.getpid()}.partial")
        with partial.open("wb") as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            return torch.load(path, weights_only=True, map_location="cpu")
        except (RuntimeError, EOFError, OSError) as error:
            raise InputError(
                f"{path}: unreadable checkpoint ({error}); remove it to start the stage again"
            ) from error
