"""The runner's own cgroup, from files as the kernel writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from trafficsim_runner.health.cgroup import Cgroup, Cpu, Memory, locate
from trafficsim_runner.health.probe import Probe

V1_MOUNTS = """\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
"""


@pytest.mark.parametrize(
    ("cgroups", "mounts", "expected"),
    [
        pytest.param(
            "0::/\n",
            "30 23 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw,nsdelegate\n",
            {"unified": "/sys/fs/cgroup"},
            id="version 2 in a container",
        ),
        pytest.param(
            "0::/user.slice/a.scope\n",
            "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
            {"unified": "/sys/fs/cgroup/user.slice/a.scope"},
            id="version 2 on a machine",
        ),
        pytest.param(
            "4:memory:/pods/a\n3:cpu,cpuacct:/pods/a\n",
            V1_MOUNTS.format(root="/pods/a"),
            {"cpu": "/sys/fs/cgroup/cpu,cpuacct", "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
             "memory": "/sys/fs/cgroup/memory"},
            id="version 1 in a container without a cgroup namespace",
        ),
        pytest.param(
            "4:memory:/x\n3:cpu,cpuacct:/\n",
            V1_MOUNTS.format(root="/"),
            {"cpu": "/sys/fs/cgroup/cpu,cpuacct", "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
             "memory": "/sys/fs/cgroup/memory/x"},
            id="version 1, another group per controller",
        ),
    ],
)  # fmt: skip
def test_where_the_files_are(cgroups, mounts, expected):
    """The path of /proc/self/cgroup below the mount's root."""
    assert {name: Path(path) for name, path in expected.items()} == locate(cgroups, mounts)


def a_machine(tmp_path, version, pids, **files):
    """Return a /proc whose only group is *tmp_path*/group with *files*."""
    group, proc = tmp_path / "group", tmp_path / "proc"
    group.mkdir()
    (proc / "self").mkdir(parents=True)
    for name, text in files.items():
        (group / name.replace("__", ".")).write_text(text)
    (group / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
    kind = "cgroup2 cgroup rw" if version == 2 else "cgroup cgroup rw,cpu,cpuacct,memory"
    (proc / "self/cgroup").write_text("0::/\n" if version == 2 else "1:cpu,cpuacct,memory:/\n")
    (proc / "self/mountinfo").write_text(f"30 23 0:26 / {group} rw - {kind}\n")
    return proc


V2 = {
    "cpu__stat": "usage_usec 1500\nuser_usec 900\nnr_periods 40\nnr_throttled 3\nthrottled_usec 7\n",
    "cpu__max": "200000 100000\n",
    "memory__current": "1300\n",
    "memory__stat": "anon 900\ninactive_file 300\nactive_file 100\n",
    "memory__max": "4096\n",
    "memory__events": "low 0\noom 2\noom_kill 1\n",
}
V1 = {
    "cpu__stat": "nr_periods 40\nnr_throttled 3\nthrottled_time 7\n",
    "cpu__cfs_quota_us": "-1\n",
    "cpu__cfs_period_us": "100000\n",
    "cpuacct__usage": "1500000\n",
    "memory__usage_in_bytes": "1300\n",
    "memory__stat": "inactive_file 7\ntotal_inactive_file 300\n",
    "memory__limit_in_bytes": "9223372036854771712\n",
    "memory__oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
}


def test_version_2(tmp_path):
    """CPU, quota, throttling, memory and kills."""
    group = Cgroup.own(a_machine(tmp_path, 2, [7, 8], **V2), pids=[7, 8])
    assert Cpu(usage_ns=1_500_000, periods=40, throttled=3, limit=2000) == group.read_cpu()
    assert Memory(used=1000, limit=4096, oom_kills=1) == group.read_memory()


def test_version_1(tmp_path):
    """The same from other files; no quota and no limit are none."""
    group = Cgroup.own(a_machine(tmp_path, 1, [7], **V1), pids=[7])
    assert Cpu(usage_ns=1_500_000, periods=40, throttled=3, limit=None) == group.read_cpu()
    assert Memory(used=1000, limit=None, oom_kills=1) == group.read_memory()


def test_a_shared_group_says_nothing(tmp_path):
    """A shell or a target beside the runner in the group: its figures are not the runner's."""
    group = Cgroup.own(a_machine(tmp_path, 2, [7, 99], **V2), pids=[7])
    assert (None, None) == (group.read_cpu(), group.read_memory())


class Machine:
    """A cgroup and processes whose figures the test sets."""

    def __init__(self, cpu=None, memory=None):
        self.cpu, self.memory, self.own_ns = cpu, memory, 0

    def read_cpu(self):
        return self.cpu

    def read_memory(self):
        return self.memory


def test_a_probe_reads_differences_of_its_own_cgroup():
    """CPU, throttling and kills since the last reading."""
    machine = Machine(Cpu(usage_ns=100, periods=10, throttled=1, limit=1500), Memory(used=5, limit=50, oom_kills=4))
    probe = Probe(None, None, find=lambda pids: machine, own_cpu_ns=lambda: machine.own_ns)
    probe.find([1])
    probe.read(0, [1], 0)
    machine.cpu = Cpu(usage_ns=700, periods=15, throttled=3, limit=1500)
    machine.memory = Memory(used=6, limit=50, oom_kills=5)
    reading = probe.read(10**9, [1], 10**9)
    assert (600, 1500, 5, 2, 1, 6, 50) == (
        reading.cpu_ns, reading.cores, reading.periods, reading.throttled, reading.oom_kills, reading.memory,
        reading.memory_limit,
    )  # fmt: skip


def test_a_probe_without_one_adds_its_processes():
    """The supervisor's CPU and the workers'; what they had used before the first reading is not counted."""
    machine = Machine()
    probe = Probe(2000, 64, find=lambda pids: machine, own_cpu_ns=lambda: machine.own_ns)
    probe.read(0, [], 5000)
    machine.own_ns = 30
    reading = probe.read(10**9, [], 5400)
    assert (430, 2000, 64, 0, 0) == (
        reading.cpu_ns, reading.cores, reading.memory_limit, reading.periods, reading.oom_kills
    )  # fmt: skip
