import math
from pathlib import Path

import pytest

from lib import limits


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree of control groups, of which this process is in job/step."""
    own = tmp_path / "self"
    own.write_text("1:cpu:/of/version/1\n0::/job/step\n")
    (tmp_path / "job" / "step").mkdir(parents=True)
    monkeypatch.setattr(limits, "GROUPS", tmp_path)
    monkeypatch.setattr(limits, "OWN", own)
    monkeypatch.setattr("os.sysconf", {"SC_PHYS_PAGES": 9, "SC_PAGE_SIZE": 1000}.__getitem__)
    return tmp_path


def test_the_narrowest_limit_of_all_groups_around_counts(groups):
    for group, cpu, memory in (("job", "250000 100000", "8000"), ("job/step", "400000 100000", "max")):
        (groups / group / "cpu.max").write_text(f"{cpu}\n")
        (groups / group / "memory.max").write_text(f"{memory}\n")
    assert (limits.cpus(), limits.memory()) == (2.5, 8000)


def test_in_a_container_the_limits_stand_at_the_top(groups):
    (groups / "self").write_text("0::/\n")
    (groups / "cpu.max").write_text("50000 100000\n")
    (groups / "memory.max").write_text("1000\n")
    assert (limits.cpus(), limits.memory()) == (0.5, 1000)


@pytest.mark.parametrize("own", ["0::/job/step\n", "0::/not/there\n", "4:memory:/version/1/alone\n", "", None])
@pytest.mark.parametrize("told", ["max 100000\n", "damaged\n", "", None])
def test_without_a_limit_that_can_be_read_memory_is_the_machines(groups, own, told):
    (groups / "self").unlink() if own is None else (groups / "self").write_text(own)
    for name in ("cpu.max", "memory.max") if told is not None else ():
        (groups / "job" / name).write_text(told)
    assert (limits.cpus(), limits.memory()) == (math.inf, 9000)
