import math
from pathlib import Path

import pytest

from lib.machine import limits


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree of control groups, on a machine of 9,000 bytes; this process is in job/step."""
    (tmp_path / "self").write_text("0::/job/step\n")
    monkeypatch.setattr(limits, "GROUPS", tmp_path)
    monkeypatch.setattr(limits, "OWN", tmp_path / "self")
    monkeypatch.setattr("os.sysconf", {"SC_PHYS_PAGES": 9, "SC_PAGE_SIZE": 1000}.__getitem__)
    return tmp_path


def write(folder: Path, **content: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in content.items():
        (folder / name.replace("_", ".", 1)).write_text(f"{text}\n")


def test_the_narrowest_limit_of_all_groups_around_counts(groups):
    write(groups / "job", cpu_max="250000 100000", memory_max="8000")
    write(groups / "job/step", cpu_max="400000 100000", memory_max="max")
    assert (limits.cpus(), limits.memory()) == (2.5, 8000)


def test_in_a_container_the_limits_stand_at_the_top(groups):
    (groups / "self").write_text("0::/\n")
    write(groups, cpu_max="50000 100000", memory_max="1000")
    assert (limits.cpus(), limits.memory()) == (0.5, 1000)


def test_version_1_has_a_tree_for_each_kind_of_limit(groups):
    (groups / "self").write_text("5:cpu,cpuacct:/slurm/job\n4:memory:/slurm/job\n3:cpuset:/\n0::/\n")
    write(groups / "cpu,cpuacct/slurm/job", cpu_cfs_quota_us="400000", cpu_cfs_period_us="100000")
    write(groups / "memory/slurm/job", memory_limit_in_bytes="7000")
    assert (limits.cpus(), limits.memory()) == (4.0, 7000)
    write(groups / "cpu,cpuacct/slurm/job", cpu_cfs_quota_us="-1")
    write(groups / "memory/slurm/job", memory_limit_in_bytes=str(2**63 - 4096))
    assert (limits.cpus(), limits.memory()) == (math.inf, 9000)


@pytest.mark.parametrize("own", ["0::/job/step\n", "0::/not/there\n", "4:pids:/alone\n", "", None])
@pytest.mark.parametrize("told", ["max 100000", "damaged", "", "0 100000", None])
def test_without_a_limit_that_can_be_read_memory_is_the_machines(groups, own, told):
    (groups / "self").unlink() if own is None else (groups / "self").write_text(own)
    if told is not None:
        write(groups / "job", cpu_max=told, memory_max=told)
    assert (limits.cpus(), limits.memory()) == (math.inf, 9000)
