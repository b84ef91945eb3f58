import io
from pathlib import Path

import pytest
import torch

from lib.machine.stopping import ENDS_WITH_PARENT
from lib.metrics import EpochRecord
from lib.progress import Progress, duration

TITLE = "run 3 of 16  resnet110-baseline-0 (110 layers, synthetic)"


class Clock:
    """Stands in for the module time: it stands still until it is turned."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def process_time(self) -> float:
        return 30.0  # what getting ready took


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("lib.progress.time", clock)
    return clock


def record(epoch: int, accuracy: float) -> EpochRecord:
    return EpochRecord(epoch, 0.001, train_loss=1.2345, train_accuracy=0.5, test_loss=1.5, test_accuracy=accuracy)


def batches(sizes: list[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(torch.zeros(size, 3, 32, 32), torch.zeros(size)) for size in sizes]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (45.4, "45 s"),
        (89, "89 s"),
        (90, "2 min"),
        (720, "12 min"),
        (3599, "60 min"),
        (3600, "1.0 h"),
        (3.5 * 3600, "3.5 h"),
        (86399, "24.0 h"),
        (86400, "1.0 days"),
        (2.1 * 86400, "2.1 days"),
    ],
)
def test_a_span_of_time_is_said_as_people_say_it(seconds, text):
    assert duration(seconds) == text


def test_an_epochs_line_has_the_run_the_epoch_the_accuracy_and_the_time_left(clock, capsys):
    progress = Progress(TITLE, epochs=4, images=100, later=[1.0, 2.0])
    clock.now += (
        120  # two epochs in two minutes: two of this run, twelve and getting ready twice of later ones are left
    )
    progress.epoch(record(2, 0.7125))
    out, err = capsys.readouterr()
    assert out == f"{TITLE}  epoch 2/4  train loss 1.234  test accuracy  71.25%  2 min left, 15 min for all\n"
    assert err == ""


@pytest.mark.parametrize("before", [0, 4])
def test_after_the_first_epoch_here_the_pace_is_that_of_the_others(before, clock, capsys):
    progress = Progress(TITLE, epochs=before + 4, images=100, later=[])
    if before:
        progress.resumed([record(1 + epoch, 0.1) for epoch in range(before)], Path("here"))
    for epoch, seconds in ((1, 600), (2, 60), (3, 60)):
        clock.now += seconds
        progress.epoch(record(before + epoch, 0.1))
    said = [line.rpartition("%  ")[2] for line in capsys.readouterr().out.splitlines()][-3:]
    assert said == ["30 min left, 30 min for all", "2 min left, 2 min for all", "60 s left, 60 s for all"]


def test_the_last_runs_last_line_leaves_no_time(clock, capsys):
    progress = Progress(TITLE, epochs=2, images=100, later=[])
    clock.now += 120
    progress.epoch(record(2, 1.0))
    assert capsys.readouterr().out.endswith("100.00%  0 s left, 0 s for all\n")


def test_nothing_is_said_of_all_where_others_are_trained_beside(clock, capsys):
    progress = Progress(TITLE, epochs=4, images=100, later=None)
    clock.now += 120
    progress.epoch(record(2, 1.0))
    assert capsys.readouterr().out.endswith("100.00%  2 min left\n")


def test_before_anything_is_done_no_time_is_guessed(clock):
    assert Progress(TITLE, epochs=2, images=100, later=[]).time_left(0) == ""


@pytest.mark.parametrize("sizes", [[32, 32, 16], [1], []])
def test_batches_pass_through_unchanged_and_silently_where_there_is_no_terminal(sizes, capsys):
    given = batches(sizes)
    passed = list(Progress(TITLE, epochs=2, images=max(1, sum(sizes)), later=[]).batches(1, given))
    assert len(passed) == len(given)
    assert all(mine is theirs for mine, theirs in zip(passed, given, strict=True))
    assert capsys.readouterr() == ("", "")


def test_batches_are_asked_for_one_at_a_time():
    asked = []

    def source():
        for batch in batches([8, 8, 8]):
            asked.append(batch)
            yield batch

    passing = Progress(TITLE, epochs=2, images=24, later=[]).batches(1, source())
    next(passing)
    assert len(asked) == 1


def test_a_training_of_a_study_leaves_the_terminal_to_the_studys_bar(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv(ENDS_WITH_PARENT, "1")
    assert len(list(Progress(TITLE, epochs=4, images=64, later=[]).batches(1, batches([64])))) == 1
    assert terminal.getvalue() == ""


def test_on_a_terminal_a_bar_says_the_run_the_epoch_and_the_last_accuracy(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    progress = Progress(TITLE, epochs=4, images=64, later=[])
    for epoch, accuracy in ((1, 0.25), (2, 0.5)):
        given = batches([32, 32])
        assert len(list(progress.batches(epoch, given))) == 2
        progress.epoch(record(epoch, accuracy))
    shown = terminal.getvalue()
    assert f"{TITLE}  epoch 1/4  test    -   " in shown
    assert f"{TITLE}  epoch 2/4  test  25.00%" in shown
    assert "/64 images" in shown


@pytest.mark.parametrize(("epoch", "epochs"), [(0.01, 1000), (3600.0, 1), (0.0, 10**9)])
def test_nothing_is_said_of_a_run_of_up_to_an_hour(epoch, epochs, capsys):
    Progress(TITLE, 3, 100, later=[15.0]).warn_if_slow(epoch, epochs)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("epochs", "later", "texts"),
    [
        (10, [], ("an epoch takes 20 min", "3.3 h for this run", "3.3 h with all")),
        (10, [10.0, 5.0], ("an epoch takes 20 min", "3.3 h for this run", "2.2 days with all")),
        (4, [10.0, 5.0], ("an epoch takes 20 min", "1.3 h for this run", "2.1 days with all")),  # 6 of 10 are done
    ],
)
def test_of_a_run_of_over_an_hour_its_time_the_studys_and_a_cure_are_said(epochs, later, texts, capsys):
    """What is done of this run shortens this run alone: the later ones are whole."""
    Progress(TITLE, 10, 100, later).warn_if_slow(1200.0, epochs)
    out = capsys.readouterr().out
    assert all(text in out for text in (*texts, "make rehearsal"))
