"""A run that was stopped and goes on equals the run that was never stopped, bit by bit: outputs, weights, optimizer.

Each process is a fork of a clean one (tests/crashing.py), or an interpreter of its own. The negative controls break
one thing that resuming needs, and must be seen to differ: without them equality would prove nothing.
"""

import dataclasses
import itertools
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lib import cifar10, synthetic
from lib.card import RunCard
from lib.checkpoint import read_checkpoint
from lib.metrics import read_metrics
from tests.crashing import ROOT, Change, Processes, checkpoints_in, clean_process, differences, files_in, make_workplace
from tests.making import IC_CARD

CARD = dataclasses.replace(IC_CARD, epochs=3, train_images=4, batch_size=2, test_images=2)
STEPS = 2  # in an epoch of the cards here
DROPS = dict(learning_rate_rule="steps", learning_rate_steps=(1, 3), learning_rate_factor=0.1)
KILLED_AFTER_AN_EPOCH = ("signalled_after_epochs", 1, signal.SIGKILL)
STEPS_NOTED = ("noting_steps",)
ORDERINGS = ["baseline", "relu_ic_conv", "ic_conv_relu", "conv_relu_ic"]
OUTPUTS = {f"metrics/{CARD.name}.json", f"models/{CARD.name}.pt"}


class Bench:
    """Working directories, and runs in them."""

    def __init__(self, processes: Processes, data: Path, folder: Path) -> None:
        self.train, self.data, self.folder = processes.train, data, folder
        self.numbers = itertools.count()
        self.straight_runs: dict[tuple[RunCard, tuple[Change, ...]], Path] = {}

    def workplace(self, card: RunCard) -> Path:
        """A new one."""
        return make_workplace(self.folder / f"{next(self.numbers)}", self.data, card)

    def straight(self, card: RunCard, *changes: Change) -> Path:
        """Where the card's run is that nothing stopped: for comparing with, not for changing."""
        if (card, changes) not in self.straight_runs:
            workplace = self.workplace(card)
            ended = self.train(workplace, card, *changes)
            assert (ended.status, ended.error) == (0, "")
            self.straight_runs[card, changes] = workplace
        return self.straight_runs[card, changes]

    def finished(self, card: RunCard) -> Path:
        """A copy of the straight run."""
        return Path(shutil.copytree(self.straight(card), self.folder / f"{next(self.numbers)}", symlinks=True))

    def killed(self, card: RunCard, epochs: int, *changes: Change) -> Path:
        """A run that is killed after each of so many epochs, and started again each time."""
        workplace = self.workplace(card)
        for epoch in range(1, epochs + 1):
            ended = self.train(workplace, card, STEPS_NOTED, *changes, KILLED_AFTER_AN_EPOCH)
            assert (ended.status, ended.steps) == (-signal.SIGKILL, STEPS)
            assert read_checkpoint(checkpoints_in(workplace)[0]).epoch == epoch
        return workplace

    def made_whole(self, card: RunCard, *changes: Change) -> Path:
        """A run that is killed after each of its epochs, the last one too, and is then started once more."""
        workplace = self.killed(card, card.epochs, *changes)
        ended = self.train(workplace, card, STEPS_NOTED, *changes)
        assert (ended.status, ended.steps) == (0, 0)
        return workplace


@pytest.fixture(scope="module")
def bench(pristine_stand_in: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(clean_process(), pristine_stand_in, tmp_path_factory.mktemp("bench"))


def contents(workplace: Path, card: RunCard) -> dict[str, bytes]:
    names = (f"metrics/{card.name}.json", f"models/{card.name}.pt")
    return {name: (workplace / name).read_bytes() for name in names}


# Killed after every epoch.


@pytest.mark.parametrize(
    "block, optimizer", [("basic", "adam"), pytest.param("bottleneck", "sgd", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("ordering", ORDERINGS)
def test_a_run_killed_after_every_epoch_is_the_run_that_was_not(
    ordering: str, block: str, optimizer: str, bench: Bench
) -> None:
    card = dataclasses.replace(
        CARD,
        ordering=ordering,
        dropout_p=None if ordering == "baseline" else 0.1,
        block=block,
        optimizer=optimizer,
        momentum=0.9 if optimizer == "sgd" else None,
    )
    one = bench.straight(card)
    other = bench.made_whole(card)
    assert differences(one, other, card) == []


@pytest.mark.parametrize("precision", ["bfloat16"])
def test_so_it_is_in_mixed_precision(precision: str, bench: Bench) -> None:
    card = dataclasses.replace(CARD, precision=precision)
    one = bench.straight(card)
    assert differences(one, bench.made_whole(card), card) == []


@pytest.mark.parametrize(
    "step, number, status",
    [
        (1, signal.SIGTERM, 143),
        (2, signal.SIGINT, 130),
        (3, signal.SIGKILL, -9),
        (4, signal.SIGTERM, 143),
        (5, signal.SIGINT, 130),
        (6, signal.SIGTERM, 143),  # the last one: what is left is to evaluate
    ],
)
def test_a_run_stopped_at_any_step_goes_on_from_its_last_whole_epoch(
    step: int, number: int, status: int, bench: Bench
) -> None:
    stopped = bench.workplace(CARD)
    ended = bench.train(stopped, CARD, ("signalled_at_step", step, number))
    assert ended.status == status
    whole = (step - 1) // STEPS
    assert f"models/{CARD.name}.pt" not in files_in(stopped)
    assert len(checkpoints_in(stopped)) == min(whole, 2)
    ended = bench.train(stopped, CARD, STEPS_NOTED)
    assert (ended.status, ended.error) == (0, "")
    assert ended.steps == STEPS * (CARD.epochs - whole)
    assert differences(bench.straight(CARD), stopped, CARD) == []


@pytest.mark.slow
def test_the_command_itself_stopped_by_each_signal_in_turn_is_made_whole_by_itself(bench: Bench) -> None:
    # Long epochs: there is time for a signal between the line that an epoch has ended and the end of the next one.
    card = dataclasses.replace(CARD, epochs=5, train_images=200, batch_size=4)
    stopped = bench.workplace(card)
    for number, status in [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)]:
        run = start_command(stopped, card)
        assert run.stdout
        while "epoch " not in run.stdout.readline().replace("epochs ", ""):
            assert run.poll() is None
        run.send_signal(number)
        _, error = run.communicate()
        assert run.returncode == status
        assert f"models/{card.name}.pt" not in files_in(stopped)
        assert ("the same command goes on" in error) == (number != signal.SIGKILL)
    done = read_checkpoint(checkpoints_in(stopped)[0]).epoch
    run = start_command(stopped, card)
    out, error = run.communicate()
    assert (run.returncode, error) == (0, "")
    assert f"goes on with {done + 1}" in out
    assert differences(bench.straight(card), stopped, card) == []


def start_command(workplace: Path, card: RunCard) -> subprocess.Popen[str]:
    """What DVC runs: a new interpreter, with all of its own start."""
    command = [sys.executable, "-m", "stages.train", f"plan/{card.name}.json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}  # as many as the others' here
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=workplace, env=environment, stdout=pipe, stderr=pipe, text=True)


# Another number of epochs.


@pytest.mark.parametrize("rule", [{}, DROPS], ids=["constant", "steps"])
def test_another_number_of_epochs_uses_the_epochs_there_are(rule: dict, bench: Bench) -> None:
    two, four = (dataclasses.replace(CARD, epochs=epochs, **rule) for epochs in (2, 4))
    of_two = bench.straight(two)
    of_four = bench.straight(four)
    changed = bench.finished(two)

    four.write(changed / "plan" / f"{four.name}.json")  # Raised: trains the rest.
    ended = bench.train(changed, four, STEPS_NOTED)
    assert (ended.status, ended.steps) == (0, 2 * STEPS)
    assert differences(of_four, changed, four) == []

    two.write(changed / "plan" / f"{two.name}.json")  # Lowered: epoch 2's checkpoint is gone, it is trained again.
    ended = bench.train(changed, two, STEPS_NOTED)
    assert (ended.status, ended.steps) == (0, 2 * STEPS)
    assert differences(of_two, changed, two) == []

    four.write(changed / "plan" / f"{four.name}.json")  # Raised again: all there.
    ended = bench.train(changed, four, STEPS_NOTED)
    assert (ended.status, ended.steps) == (0, 0)
    assert differences(of_four, changed, four) == []


def test_a_finished_run_is_collected_without_a_step(bench: Bench) -> None:
    finished = bench.finished(CARD)
    before = contents(finished, CARD)
    for lost in [set(), *({name} for name in OUTPUTS), OUTPUTS]:  # DVC deletes the outputs before it runs a stage
        for name in lost:
            os.unlink(finished / name)
        ended = bench.train(finished, CARD, STEPS_NOTED)
        assert (ended.status, ended.steps, ended.error) == (0, 0, "")
        assert "nothing is left to train" in ended.out
        assert contents(finished, CARD) == before


# Negative controls: equality above would mean nothing if these were equal, too.


@pytest.mark.parametrize("optimizer, momentum", [("adam", None), ("sgd", 0.9)])
def test_a_run_that_forgets_its_optimizers_state_differs(optimizer: str, momentum: float | None, bench: Bench) -> None:
    card = dataclasses.replace(CARD, optimizer=optimizer, momentum=momentum)
    assert {"weights", "optimizer", "history"} <= set(control(bench, card, "without_optimizer_state"))


def test_a_run_that_forgets_its_running_statistics_differs(bench: Bench) -> None:
    assert {"weights", "history"} <= set(control(bench, CARD, "without_buffers"))


@pytest.mark.parametrize("purpose", ["order", "dropout"])
def test_a_run_whose_seeds_start_again_with_it_differs(purpose: str, bench: Bench) -> None:
    found = control(bench, CARD, "seeds_counted_from_the_process", purpose)
    assert {"weights", "optimizer", "history"} <= set(found)


def test_a_run_of_one_stream_of_random_numbers_differs(bench: Bench) -> None:
    assert {"weights", "history"} <= set(control(bench, CARD, "one_stream_of_random_numbers"))


def control(bench: Bench, card: RunCard, change: str, *arguments: str) -> list[str]:
    """How a killed run with a change differs from a straight one with the same change."""
    one = bench.straight(card, (change, *arguments))
    other = bench.killed(card, 1, (change, *arguments))
    assert bench.train(other, card, (change, *arguments)).status == 0
    return differences(one, other, card)


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_a_run_keeps_the_threads_it_was_trained_with_and_would_differ_with_others(bench: Bench) -> None:
    one, other = ("on_threads", 1), ("on_threads", 2)
    card = dataclasses.replace(CARD, train_images=16, batch_size=8)  # enough for two threads to share
    began = bench.straight(card, one)
    kept, changed = bench.killed(card, 1, one), bench.killed(card, 1, one)
    assert bench.train(kept, card, other).error == ""
    assert differences(began, kept, card) == []
    ended = bench.train(changed, card, other, ("forgetting_the_threads",))
    assert ended.status == 0
    assert "1 thread), the rest will be by" in ended.error  # sound, and said
    assert {"weights", "history"} <= set(differences(began, changed, card))


# Another run's checkpoints.


@pytest.mark.parametrize(
    "other_card, change, other_data, named",
    [
        ({"learning_rate": 0.002}, None, False, "learning_rate"),
        ({"dropout_p": 0.1}, None, False, "dropout_p"),
        ({}, None, True, "data"),
        ({}, ("with_other_code", "lib/ic.py"), False, "lib/ic.py"),
        ({}, ("of_schema", 2), False, "schema"),
    ],
    ids=["rate", "dropout", "data", "code", "schema"],
)
def test_a_run_never_goes_on_from_another_ones_checkpoint(
    other_card: dict,
    change: Change | None,
    other_data: bool,
    named: str,
    bench: Bench,
    tmp_path: Path,
) -> None:
    card, changes = dataclasses.replace(CARD, **other_card), [change] if change else []
    used, fresh = bench.killed(CARD, 1), bench.workplace(card)
    card.write(used / "plan" / f"{card.name}.json")
    if other_data:
        cifar10.write_stand_in(tmp_path / "other", synthetic.NAME, synthetic.generate(8, 40), synthetic.CLASSES)
        for each in (used, fresh):
            os.unlink(each / "data" / "cifar10")
            os.symlink(tmp_path / "other", each / "data" / "cifar10")
    (old,) = (path.parent for path in checkpoints_in(used))
    before = {path.name: path.read_bytes() for path in old.glob("epoch-*")}

    ended = bench.train(used, card, STEPS_NOTED, *changes)
    assert (ended.status, ended.steps) == (0, card.epochs * STEPS)
    (line,) = ended.error.splitlines()
    assert old.name in line and "not used" in line
    assert named in line.partition(" with another ")[2]
    assert {path.name: path.read_bytes() for path in old.glob("epoch-*")} == before
    assert len({path.parent for path in checkpoints_in(used)}) == 2  # each in a folder of its own
    assert bench.train(fresh, card, *changes).status == 0
    assert contents(used, card) == contents(fresh, card)


def test_a_run_that_ends_before_its_first_epoch_leaves_nothing_that_a_later_one_could_mistake(bench: Bench) -> None:
    stopped = bench.workplace(CARD)
    assert bench.train(stopped, CARD, ("signalled_at_step", 2, signal.SIGKILL)).status == -signal.SIGKILL
    assert not files_in(stopped) & OUTPUTS
    ended = bench.train(stopped, CARD, STEPS_NOTED)
    assert (ended.steps, ended.error) == (CARD.epochs * STEPS, "")


def test_checkpoints_that_were_moved_away_cost_a_training_and_change_nothing(bench: Bench) -> None:
    finished = bench.finished(CARD)
    before = contents(finished, CARD)
    shutil.rmtree(finished / "checkpoints")
    assert bench.train(finished, CARD, STEPS_NOTED).steps == CARD.epochs * STEPS
    assert contents(finished, CARD) == before
    assert read_metrics(finished / "metrics" / f"{CARD.name}.json").finished
