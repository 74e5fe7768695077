"""The identity of a process among all machines, and whether it is still alive."""

import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Holder:
    """The process that holds a lease.

    Attributes:
        host: Host name.
        boot: The kernel's boot id; empty if unknown.
        namespace: The process-id namespace: containers of one kernel share the boot id.
        pid: Process id in that namespace.
        started: The process's start time in clock ticks since boot: process ids are reused.
        token: A random token, so that two leases of one process differ.
    """

    host: str
    boot: str
    namespace: str
    pid: int
    started: int
    token: str = field(default_factory=lambda: secrets.token_hex(16))

    @classmethod
    def here(cls) -> "Holder":
        """Return this process as the holder of a new lease."""
        pid = os.getpid()
        return cls(socket.gethostname(), *_machine(), pid, _started(pid))

    @classmethod
    def from_record(cls, record: object, token: str) -> "Holder":
        """Return the holder that a lease's record names.

        Args:
            record: The JSON object.
            token: The record's name for the field `token`.

        Raises:
            ValueError: The record is of another form.
        """
        if not isinstance(record, Mapping):
            raise ValueError("holds no JSON object")
        values: dict[str, Any] = {}
        for each in fields(cls):
            name = token if each.name == "token" else each.name
            kind = int if each.name in ("pid", "started") else str
            if type(record.get(name)) is not kind:
                raise ValueError(f"lacks {name}, or has it of another type")
            values[each.name] = record[name]
        return cls(**values)

    def record(self, token: str) -> dict[str, Any]:
        """Return a lease's record, with the field `token` under this name."""
        return {token if name == "token" else name: value for name, value in asdict(self).items()}

    def is_dead(self) -> bool | None:
        """Return whether the process is dead; None if it runs on another machine."""
        boot, namespace = _machine()
        here = (socket.gethostname(), boot, namespace)
        if not boot or (self.host, self.boot, self.namespace) != here:
            return None
        return _started(self.pid) != self.started


@cache
def _machine() -> tuple[str, str]:
    """Return this boot's id and this process-id namespace; empty if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return boot, str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return "", ""


def _started(pid: int) -> int:
    """Return when a process started (ticks since boot); -1 if it is dead or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return -1
    # The name in parentheses may hold spaces and parentheses itself.
    status = text.rpartition(")")[2].split()
    return -1 if status[0] in "ZX" else int(status[19])
