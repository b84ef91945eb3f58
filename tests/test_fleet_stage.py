"""stages/fleet.py and lib/fleet/dvc.py around training: what DVC is asked and told, how failures are reported."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from dvc import lock as dvc_lock

from lib.errors import BadInput, StageError, Stopped, TryAgain
from lib.fleet import dvc
from lib.machine.stopping import Stop
from stages import fleet
from tests.making import CARD, IC_CARD

ROOT = Path(__file__).parents[1]


def speaking(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """DVC is a program of ours."""
    monkeypatch.setattr(dvc, "DVC", [sys.executable, "-c", program])


def test_stale_stages_are_those_of_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    speaking(
        monkeypatch, """print('{"train@b-1": [], "train@a-0": [{"changed deps": {}}], "report": [], "trains@x": []}')"""
    )
    assert dvc.stale(lambda: None, "train") == ["b-1", "a-0"]


def test_a_dvc_that_cannot_tell_ends_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    speaking(monkeypatch, "import sys; sys.exit(255)")
    with pytest.raises(StageError, match=r"^`dvc status train --json` ended with status 255; it said why above$"):
        dvc.stale(lambda: None, "train")


@pytest.mark.parametrize(
    "busy",
    [
        "ERROR: failed to reproduce 'plan': 'plan' is busy, it is being blocked by: (PID 1)",
        f"ERROR: {dvc_lock.FAILED_TO_LOCK_MESSAGE}",
    ],
    ids=["a stage's files", "the repository"],
)
def test_another_dvc_at_work_is_a_reason_to_try_again(busy: str, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    speaking(monkeypatch, f"import sys; sys.exit({busy!r})")
    for ask in (lambda: dvc.run(lambda: None, "repro"), lambda: dvc.stale(lambda: None, "train")):
        with pytest.raises(TryAgain, match="another dvc is at work in this project"):
            ask()
        assert busy in capfd.readouterr().err


def test_a_dvc_that_fails_ends_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    speaking(monkeypatch, "import sys; sys.exit(255)")
    with pytest.raises(StageError, match=r"^`dvc repro plan` ended with status 255; it said why above$"):
        dvc.run(lambda: None, "repro", "plan")


def test_a_stop_ends_dvc_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    note = tmp_path / "note"
    speaking(monkeypatch, f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(600)")

    def check() -> None:
        if note.exists() and note.read_text():
            raise Stopped("stopped", 15)

    start = time.monotonic()
    with pytest.raises(Stopped):
        dvc.run(check, "repro")
    assert time.monotonic() - start < 60
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def test_a_damaged_card_fails_its_run_alone(workplace: Path) -> None:
    for card in (CARD, IC_CARD):
        card.write(Path("plan", f"{card.name}.json"))
    path = Path("plan", f"{IC_CARD.name}.json")
    path.write_text(path.read_text().replace("0.05", "0.06"))
    members, failed = fleet.members_of([IC_CARD.name, CARD.name], "d" * 64)
    assert [member.name for member in members] == [CARD.name]
    assert "was damaged, or changed by hand" in str(failed[IC_CARD.name])


def test_every_failure_is_named_and_trying_again_advised_only_where_it_helps(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = fleet.failure({"a-0": BadInput("the loss became nan"), "b-0": TryAgain("busy")}, of=16)
    assert capsys.readouterr().err == "fleet: a-0: the loss became nan\nfleet: b-0: busy\n"
    assert error.status == 2
    assert fleet.failure({"b-0": TryAgain("busy")}, of=16).status == 75
    assert str(error).startswith("2 of 16 runs failed, the others are trained: a-0, b-0. Fix them")
    assert "the others" not in str(fleet.failure({"a-0": BadInput("?")}, of=1))


def test_what_failed_is_named_even_if_the_others_cannot_be_collected(
    monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    speaking(monkeypatch, "import sys; sys.exit(255)")
    fleet.collect(["a-0"], Stop())
    assert "fleet: `dvc repro --single-item train@a-0` ended with status 255" in capfd.readouterr().err


def test_a_slurm_array_task_trains_the_run_of_its_number(workplace: Path, tmp_path: Path) -> None:
    """Without SLURM, with what it would set; without training, which other tests do."""
    Path("plan").mkdir()
    Path("plan/study.json").write_text('{"runs": ["a-0", "b-0"]}')
    activate = tmp_path / "venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.write_text(f'python() {{ {sys.executable} "$@"; }}\nexec() {{ echo would "$@"; }}\n')

    def task(number: int) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "VENV": str(tmp_path / "venv"), "SLURM_ARRAY_TASK_ID": str(number)}
        return subprocess.run([ROOT / "tools/train.sbatch"], env=environment, capture_output=True, text=True)

    assert task(1).stdout == "would python -m stages.train plan/b-0.json\n"
    assert task(2).returncode == 2
    assert task(2).stderr.startswith("plan/study.json has no run number 2: ")
