"""Reads W&B's run files: W&B ships no Python reader of them.

The format is LevelDB's log after a header of seven bytes: blocks of 32 KiB, in them chunks of
(checksum, length, kind) and data; each whole record is a protobuf message.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from wandb.proto import wandb_internal_pb2

HEADER = 7
BLOCK = 32768
CHUNK = struct.Struct("<IHB")
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass
class RunFile:
    """What a run file says, without times."""

    run_id: str = ""
    name: str = ""
    group: str = ""
    job_type: str = ""
    host: str = ""
    project: str = ""
    entity: str = ""
    notes: str = ""
    sweep: str = ""
    tags: tuple[str, ...] = ()
    config: dict = field(default_factory=dict)
    history: list[tuple[int, dict]] = field(default_factory=list)
    summary: dict = field(default_factory=dict)
    artifacts: list[str] = field(default_factory=list)
    exit_code: int | None = None

    @property
    def content(self) -> tuple:
        found = {k: v for k, v in self.summary.items() if not k.startswith("_")}
        found = json.dumps(found, sort_keys=True)
        config = json.dumps(self.config, sort_keys=True)
        who = (self.run_id, self.name, self.group, self.job_type, self.tags)
        return (*who, config, str(self.history), found, tuple(self.artifacts), self.exit_code)


def read_runs(folder: Path) -> dict[str, RunFile]:
    """Return all runs under a folder, by id; fails where one was written twice."""
    found = [read_run(path) for path in sorted(folder.rglob("*.wandb"))]
    runs = {run.run_id: run for run in found}
    assert len(runs) == len(found)
    return runs


def read_run(path: Path) -> RunFile:
    run = RunFile()
    for data in records(path.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found = record.run
            run.run_id, run.name, run.group = found.run_id, found.display_name, found.run_group
            run.job_type, run.host, run.tags = found.job_type, found.host, tuple(found.tags)
            run.project, run.entity = found.project, found.entity
            run.notes, run.sweep = found.notes, found.sweep_id
            update(run.config, found.config.update)
        elif kind == "config":
            update(run.config, record.config.update)
        elif kind == "summary":
            update(run.summary, record.summary.update)
        elif kind == "history":
            line: dict = {}
            update(line, record.history.item)
            kept = {k: v for k, v in line.items() if not k.startswith("_")}
            run.history.append((line["_step"], kept))
        elif kind == "artifact":
            run.artifacts.append(record.artifact.name)
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    run.config.pop("_wandb", None)
    return run


def update(target: dict, items) -> None:
    for item in items:
        *parents, name = list(item.nested_key) or [item.key]
        place = target
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = json.loads(item.value_json)


def records(data: bytes) -> Iterator[bytes]:
    assert data[:4] == b":W&B"
    place, whole = HEADER, b""
    while place + CHUNK.size <= len(data):
        left = BLOCK - place % BLOCK
        if left < CHUNK.size:
            place += left
            continue
        _, length, kind = CHUNK.unpack_from(data, place)
        if kind == 0:
            return
        chunk = data[place + CHUNK.size : place + CHUNK.size + length]
        place += CHUNK.size + length
        whole = chunk if kind in (FULL, FIRST) else whole + chunk
        if kind in (FULL, LAST):
            yield whole
