"""lib/turns.py: runs side by side in one process, each as if it were alone."""

import weakref
from collections.abc import Iterator

import pytest
import torch

from lib import turns
from lib.errors import BadInput, StageError, Stopped, TryAgain
from lib.turns import in_turns


class Log(list[str]):
    """What the runs did, in order."""

    def run(self, name: str, steps: int, end: Exception | None = None) -> Iterator[None]:
        try:
            for step in range(steps):
                self.append(f"{name}{step}")
                yield
            if end:
                raise end
        finally:
            self.append(f"{name} leaves")


@pytest.fixture
def log() -> Log:
    return Log()


def test_runs_take_turns_at_every_step(log: Log) -> None:
    in_turns({"a": log.run("a", 3), "b": log.run("b", 2)})
    assert [each for each in log if "leaves" not in each] == ["a0", "b0", "a1", "b1", "a2"]


def test_no_more_run_at_once_than_are_of_use_and_the_next_begins_when_one_is_through(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "AT_ONCE", 2)
    in_turns({name: log.run(name, 3) for name in "abcd"})
    begun, most = 0, 0
    for each in log:
        begun += each.endswith("0") - ("leaves" in each)
        most = max(most, begun)
    assert most == 2
    assert [each for each in log if each.endswith("0")] == ["a0", "b0", "c0", "d0"]


def test_another_run_begins_only_where_the_memory_holds_it_even_if_it_is_twice_as_large(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU of 100, runs of 30 each: two at once leave 40, and the third might need 60.

    What a run took counts as free once PyTorch has given it back, which it does not do by itself.
    """
    taken, kept = set[str](), set[str]()

    def run(name: str, steps: int) -> Iterator[None]:
        taken.add(name)
        yield from log.run(name, steps)
        taken.remove(name)
        kept.add(name)

    monkeypatch.setattr(turns, "free_bytes", lambda: 100 - 30 * len(taken | kept))
    monkeypatch.setattr(torch.cuda, "empty_cache", kept.clear)
    in_turns({"a": run("a", 3), "b": run("b", 9), "c": run("c", 3)})
    assert log.index("b0") < log.index("a leaves") < log.index("c0") < log.index("b leaves")


def test_a_run_that_fails_does_so_alone_and_is_named_at_the_end(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    runs = {
        "a": log.run("a", 1, BadInput("its loss became nan")),
        "b": log.run("b", 4),
        "c": log.run("c", 2, TryAgain("busy")),
    }
    with pytest.raises(StageError, match="2 of 3 runs failed: a, c; the others are done") as caught:
        in_turns(runs)
    assert caught.value.status == 2  # trying again would not mend it
    assert "b3" in log
    assert capsys.readouterr().err.splitlines() == ["train: a: its loss became nan", "train: c: busy"]


@pytest.mark.parametrize("told", [True, False])
def test_a_run_that_failed_holds_no_memory_while_the_others_go_on(told: bool, log: Log) -> None:
    """Neither by its traceback nor by that of what it was raised in place of, or because of."""
    held: list[weakref.ref[Log]] = []

    def fails() -> Iterator[None]:
        network = Log()
        held.append(weakref.ref(network))
        yield
        try:
            raise RuntimeError(f"no memory for {network}")
        except RuntimeError as error:
            raise BadInput("out of memory") from (error if told else None)

    def looks() -> Iterator[None]:
        yield
        yield
        assert held[0]() is None
        log.append("looked")

    with pytest.raises(StageError):
        in_turns({"a": fails(), "b": looks()})
    assert log == ["looked"]


def test_a_device_that_does_not_answer_is_explained_by_the_runs(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it was lost, or has no memory even to answer."""

    class Silent:
        def __init__(self) -> None:
            raise RuntimeError("CUDA error")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", Silent)
    monkeypatch.setattr(torch.cuda, "Stream", Silent)
    monkeypatch.setattr(torch.cuda, "empty_cache", Silent)
    with pytest.raises(StageError, match="2 of 2 runs failed") as caught:
        in_turns({name: log.run(name, 0, TryAgain("the device failed")) for name in "ab"})
    assert caught.value.status == TryAgain.status


def test_a_run_alone_fails_as_it_is(log: Log) -> None:
    with pytest.raises(BadInput, match="^its loss became nan$"):
        in_turns({"a": log.run("a", 1, BadInput("its loss became nan"))})


def test_a_stop_ends_all(log: Log) -> None:
    runs = {"a": log.run("a", 2, Stopped("SIGTERM", 15)), "b": log.run("b", 9)}
    with pytest.raises(Stopped):
        in_turns(runs)
    assert "b3" not in log


def test_nothing_to_run_is_fine() -> None:
    in_turns({})
