"""The smaller of affinity and CPU quota counts, wherever in the hierarchy the quota is set."""

import os

import pytest

from namd.config import cpus
from namd.config.cpus import available_cpus


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))


def process(folder, groups, root="/", kind="cgroup2", options="rw"):
    """A process whose one control group is mounted under the folder."""
    mount = folder / "mount"
    mount.mkdir(exist_ok=True)
    (folder / "cgroup").write_text(groups)
    (folder / "mountinfo").write_text(
        "23 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
        f"31 23 0:28 {root} {mount} rw,relatime shared:9 - {kind} {kind} {options}\n"
    )
    return mount


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(text)


@pytest.mark.parametrize(
    ("quota", "count"),
    [
        ("200000 100000", 2),
        ("150000 100000", 1),
        ("20000 100000", 1),
        ("max 100000", 8),
        ("1600000 100000", 8),
    ],
)
def test_a_quota_of_version_2_limits_only_if_it_is_smaller_than_the_affinity(
    tmp_path, quota, count
):
    mount = process(tmp_path, "0::/\n")
    write(mount, cpu_max=f"{quota}\n")
    assert available_cpus(tmp_path) == count


@pytest.mark.parametrize(("quota", "count"), [("300000", 3), ("-1", 8)])
def test_a_quota_of_version_1_limits_and_minus_one_is_none(tmp_path, quota, count):
    groups = "5:memory:/elsewhere\n4:cpu,cpuacct:/job\n"
    mount = process(tmp_path, groups, kind="cgroup", options="rw,cpu,cpuacct")
    write(mount / "job", cpu_cfs_quota_us=f"{quota}\n", cpu_cfs_period_us="100000\n")
    assert available_cpus(tmp_path) == count


def test_the_smallest_quota_on_the_way_up_counts_and_those_beside_it_do_not(tmp_path):
    mount = process(tmp_path, "0::/slice/job/task\n")
    write(mount / "slice", cpu_max="200000 100000\n")
    write(mount / "slice" / "job", cpu_max="400000 100000\n")
    write(mount / "slice" / "job" / "task", cpu_max="max 100000\n")
    write(mount / "slice" / "other", cpu_max="100000 100000\n")
    assert available_cpus(tmp_path) == 2


@pytest.mark.parametrize(
    ("root", "path"), [("/docker/abc", "/docker/abc"), ("/kube/pod", "/../x"), ("/a", "/b")]
)
def test_a_group_that_is_mounted_alone_is_read_at_its_mount_point(tmp_path, root, path):
    mount = process(tmp_path, f"0::{path}\n", root=root)
    write(mount, cpu_max="300000 100000\n")
    assert available_cpus(tmp_path) == 3


def test_without_control_groups_the_affinity_counts(tmp_path):
    assert available_cpus(tmp_path) == 8
    process(tmp_path, "3:memory:/job\n")
    assert available_cpus(tmp_path) == 8


def test_the_machine_that_this_runs_on_has_an_answer():
    assert 1 <= available_cpus() <= len(cpus.os.sched_getaffinity(0))
