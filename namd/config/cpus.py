"""The number of cores that this process may use; not how many of them are busy.

joblib and Ray read a quota too, but only at the root of `/sys/fs/cgroup`: they miss one that is
set on a parent of this process's own group, as systemd and Slurm do.
"""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_PROCESS = Path("/proc/self")


def available_cpus(process: Path = _PROCESS) -> int:
    """Return the number of cores that affinity and CPU quota leave to this process, at least 1.

    A quota of 1.5 cores counts as 1.

    Args:
        process: Folder that holds the process's `cgroup` and `mountinfo`.
    """
    allowed = len(os.sched_getaffinity(0))
    quotas = [_quota(folder) for folder in _groups(process)]
    return max(1, int(min([float(allowed), *(quota for quota in quotas if quota is not None)])))


def _groups(process: Path) -> Iterator[Path]:
    """Yield the folders of the control groups that limit the process, and of those above them."""
    try:
        groups = (process / "cgroup").read_text(encoding="utf-8").splitlines()
        mounts = (process / "mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    # `4:cpu,cpuacct:/slice` of version 1, `0::/slice` of version 2.
    paths: dict[str, str] = {}
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):
            paths["cgroup" if controllers else "cgroup2"] = path
    for line in mounts:
        # `36 25 0:30 ROOT MOUNT_POINT options - TYPE source superoptions`
        place, _, filesystem = line.partition(" - ")
        root, mount_point = place.split(" ")[3:5]
        kind, _, options = filesystem.split(" ", 2)
        if kind in paths and (kind == "cgroup2" or "cpu" in options.split(",")):
            yield from _upwards(Path(mount_point), root, paths[kind])


def _upwards(mount_point: Path, root: str, path: str) -> Iterator[Path]:
    """Yield the folder of a group under a mount, then each above it up to the mount point.

    A container often mounts only its own group, whose path on the host is meaningless inside.
    """
    relative = PurePosixPath(path)
    inside = relative.is_relative_to(root) and ".." not in relative.parts
    folder = mount_point / relative.relative_to(root) if inside else mount_point
    yield folder
    while folder != mount_point:
        folder = folder.parent
        yield folder


def _quota(folder: Path) -> float | None:
    """Return the cores of a group's quota; None if it has none."""
    try:
        words = (folder / "cpu.max").read_text(encoding="utf-8").split()
    except OSError:
        try:
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            words = [(folder / name).read_text(encoding="utf-8").strip() for name in names]
        except OSError:
            return None
    if len(words) != 2 or not all(word.isdecimal() for word in words):
        return None  # `max` of version 2, `-1` of version 1
    quota_us, period_us = (int(word) for word in words)
    return quota_us / period_us if quota_us and period_us else None
