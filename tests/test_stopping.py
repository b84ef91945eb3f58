"""lib/machine/stopping.py in real processes: signals wherever they come, and the death of the parent."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
PATIENCE = 60  # seconds until a test that hangs fails; nothing is timed by it
SIGNALS = [signal.SIGTERM, signal.SIGINT]

# A stage in small: it says where it is, waits there until it is let go, and writes its output at the very end.
STAGE = """
import os, sys, time
from pathlib import Path
from lib.errors import errors_exit
from lib.files import write_whole
from lib.machine.stopping import Stop

def reached(place):
    print(place, flush=True)

def wait():
    reached("working")
    while not Path("go on").exists():
        time.sleep(0.01)

stop = Stop()
with errors_exit("train"):
    stop.listen()
    reached("listening")
    %s
    write_whole(Path("output"), b"whole")
"""


class Process:
    """A script in a folder of its own, killed at the end of the test with all that it started."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.errors = folder / "stderr"
        with open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env={key: value for key, value in os.environ.items() if key != "DVC_STAGE"}
                | {"PYTHONPATH": str(REPOSITORY)}
                | environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,  # so that select() sees all that is not read yet
                start_new_session=True,
            )
        self.pid = self.process.pid

    def says(self) -> str:
        """Its next line; "" at the end."""
        assert self.process.stdout
        return line_of(self.process.stdout)

    def until(self, word: str) -> str:
        while (line := self.says()).split(" ")[0] != word:
            assert line, f"it ended before it said {word}: {self.errors.read_text()}"
        return line

    def ended(self) -> tuple[int, list[str]]:
        """Its exit status and its lines on standard error."""
        return self.process.wait(PATIENCE), self.errors.read_text().splitlines()


def line_of(stream: IO[bytes]) -> str:
    assert select.select([stream], [], [], PATIENCE)[0], "nothing more is said"
    return stream.readline().decode().strip()


Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    processes = []

    def start(script: str, through: tuple[str, ...] = (), **environment: str) -> Process:
        (tmp_path / "script.py").write_text(textwrap.dedent(script))
        command = [sys.executable, "script.py"]
        processes.append(Process([*through, " ".join(command)] if through else command, tmp_path, environment))
        return processes[-1]

    yield start
    for each in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(each.pid, signal.SIGKILL)  # its session, so the children of a killed one too
        each.process.wait(PATIENCE)
        each.process.stdout.close()


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"script.py", "stderr", "go on"}


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# ---- the first signal

PLACES = {  # what the stage is at when the signal comes, before it takes its next step
    "in a step": "for _ in stop.at_steps(range(3)): wait()",
    "before the first step": "wait()\n    for _ in stop.at_steps(range(3)): reached('step')",
    "while the data load": "wait()\n    stop.check()\n    reached('step')",
    "between two epochs": "for n in (2, 1): [n == 1 and reached('step') for _ in stop.at_steps([n])]; wait()",
    "while the next batch is made": "for _ in stop.at_steps(wait() or n for n in range(2)): reached('step')",
    "in the last step": "for _ in stop.at_steps([1]): wait()\n    stop.check()\n    reached('step')",
}


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("work", PLACES.values(), ids=PLACES)
def test_a_signal_ends_the_work_before_the_next_step_with_two_lines_and_no_output(
    work: str, number: signal.Signals, start: Start, tmp_path: Path
) -> None:
    stage = start(STAGE % work)
    stage.until("working")
    stage.process.send_signal(number)
    wait_until(lambda: stage.errors.read_text().count("\n") == 1)  # it has been heard
    (tmp_path / "go on").touch()
    status, (heard, ended) = stage.ended()
    assert status == 128 + number
    assert heard == f"train: {number.name}: stopping at the next step"
    assert ended == f"train: stopped by {number.name}; the same command goes on from the last whole epoch"
    assert stage.says() == ""  # no step was taken after it
    assert files(tmp_path) == set()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_the_output_is_written_leaves_it_whole_and_the_stage_done(
    number: signal.Signals, start: Start, tmp_path: Path
) -> None:
    work = "import lib.files; write = os.write; os.write = lambda *file: (file[0] > 2 and wait(), write(*file))[1]"
    stage = start(STAGE % work)
    stage.until("working")
    stage.process.send_signal(number)
    wait_until(lambda: stage.errors.read_text().count("\n") == 1)
    (tmp_path / "go on").touch()
    assert stage.ended()[0] == 0  # nothing was left to do: what is there is what was asked for
    assert (tmp_path / "output").read_bytes() == b"whole"
    assert files(tmp_path) == {"output"}


def test_without_a_signal_every_step_is_taken_and_the_stage_is_done(start: Start, tmp_path: Path) -> None:
    stage = start(STAGE % "for n in stop.at_steps(range(3)): reached(n)")
    assert [stage.says() for _ in range(5)] == ["listening", "0", "1", "2", ""]
    assert stage.ended() == (0, [])
    assert files(tmp_path) == {"output"}


# ---- the second


@pytest.mark.parametrize("number", SIGNALS)
def test_the_same_signal_again_ends_the_process_in_the_middle_of_a_step(
    number: signal.Signals, start: Start, tmp_path: Path
) -> None:
    stage = start(STAGE % "for _ in stop.at_steps(range(3)): wait()")  # nobody lets it go on
    stage.until("working")
    stage.process.send_signal(number)
    wait_until(lambda: stage.errors.read_text().count("\n") == 1)
    stage.process.send_signal(number)
    status, lines = stage.ended()
    assert (status, len(lines)) == (128 + number, 1)
    assert files(tmp_path) == set()


def test_a_parent_that_ends_its_children_after_a_ctrl_c_lets_them_come_to_the_next_step(
    start: Start, tmp_path: Path
) -> None:
    stage = start(STAGE % "for _ in stop.at_steps(range(3)): wait()")
    stage.until("working")
    stage.process.send_signal(signal.SIGINT)
    wait_until(lambda: stage.errors.read_text().count("\n") == 1)
    stage.process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    assert stage.process.poll() is None
    (tmp_path / "go on").touch()
    assert stage.ended()[0] == 130


def terminated(stage: Process) -> None:
    """SIGTERM until it ends: two that come at once are one."""
    wait_until(lambda: stage.process.poll() is not None or bool(stage.process.terminate()))


def test_after_a_ctrl_c_the_second_sigterm_ends_a_step_that_hangs(start: Start) -> None:
    stage = start(STAGE % "for _ in stop.at_steps(range(3)): wait()")  # nobody lets it go on
    stage.until("working")
    stage.process.send_signal(signal.SIGINT)
    wait_until(lambda: stage.errors.read_text().count("\n") == 1)
    terminated(stage)
    assert stage.ended()[0] == 143


def test_signals_still_end_a_stage_whose_terminal_is_gone(start: Start) -> None:
    stage = start(STAGE % "os.close(2)\n    for _ in stop.at_steps(range(3)): wait()")
    stage.until("working")
    terminated(stage)
    assert stage.ended()[0] == 143


# ---- the parent's death

# Starts a stage as DVC does (its own process group, through a shell), says the stage's number, and lives until killed.
PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen({command!r}, executable={shell!r}, shell={through_shell}, stdout=subprocess.PIPE)
print("child", child.stdout.readline().split()[0].decode(), flush=True)
time.sleep(600)
"""
CHILD = """
import os, time
from pathlib import Path
from lib.errors import errors_exit
from lib.machine.stopping import Stop

stop = Stop()
with errors_exit("train"):
    stop.listen()
    print(os.getpid(), flush=True)
    while True:
        asked = Path("go on").exists()
        stop.check()
        if asked:
            Path("worked").touch()
        time.sleep(0.01)
"""
SHELLS = {"no shell": None, "sh -c": "/bin/sh", "bash -c": "/bin/bash", "dash -c": "/bin/dash"}
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")


def orphaned(start: Start, folder: Path, shell: str | None, **environment: str) -> tuple[Process, int]:
    """A parent that was killed as by kill -9, and the number of the stage it had started."""
    if shell and not Path(shell).exists():
        pytest.skip(f"no {shell} here")
    (folder / "child.py").write_text(CHILD)
    command = [sys.executable, "child.py"]
    # exec: else dash (Debian's /bin/sh) stays in between, lives on, and the stage never hears that DVC is dead.
    through_shell = f"exec {' '.join(command)}"
    script = PARENT.format(command=through_shell if shell else command, shell=shell, through_shell=bool(shell))
    parent = start(script, **environment)
    child = int(parent.until("child").split()[1])
    parent.process.kill()
    parent.process.wait(PATIENCE)
    return parent, child


@ON_LINUX
@pytest.mark.parametrize("shell", SHELLS.values(), ids=SHELLS)
def test_a_stage_ends_when_the_dvc_that_started_it_is_killed(shell: str | None, start: Start, tmp_path: Path) -> None:
    parent, child = orphaned(start, tmp_path, shell, DVC_STAGE="train@tiny")
    wait_until(lambda: not alive(child))
    heard, ended = parent.errors.read_text().splitlines()
    assert "SIGTERM" in heard and "stopped by SIGTERM" in ended


def test_the_pipelines_command_leaves_no_shell_between_dvc_and_the_training() -> None:
    train = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]["train"]
    assert train["cmd"].startswith("exec python -m stages.train ")


@ON_LINUX
@pytest.mark.parametrize("shell", SHELLS.values(), ids=SHELLS)
def test_a_run_without_dvc_outlives_the_shell_that_started_it(shell: str | None, start: Start, tmp_path: Path) -> None:
    parent, child = orphaned(start, tmp_path, shell)
    stage = Path(f"/proc/{child}/stat")
    wait_until(lambda: int(stage.read_text().rpartition(")")[2].split()[1]) != parent.pid)  # it has been handed over
    (tmp_path / "go on").touch()
    wait_until((tmp_path / "worked").exists)  # after its parent's death, which it has not heard of
    assert parent.errors.read_text() == ""
    os.kill(child, signal.SIGTERM)
    wait_until(lambda: not alive(child))
    assert parent.errors.read_text().splitlines()[0].startswith("train: SIGTERM")


LATE = """
import os, time
from pathlib import Path
from lib.errors import errors_exit
from lib.machine.stopping import Stop

parent = os.getppid()  # it lives until this process has said who it is
print(os.getpid(), flush=True)
while os.getppid() == parent:
    time.sleep(0.01)
with errors_exit("train"):
    Stop().listen()
    Path("worked").touch()
"""


@ON_LINUX
@pytest.mark.parametrize("stage, works", [("train@tiny", False), (None, True)], ids=["under dvc", "without dvc"])
def test_a_stage_whose_dvc_died_before_it_listened_stops_at_once(
    stage: str | None, works: bool, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "CHILD", LATE)
    parent, child = orphaned(start, tmp_path, None, **({"DVC_STAGE": stage} if stage else {}))
    wait_until(lambda: not alive(child))
    assert (tmp_path / "worked").exists() == works
    if not works:
        assert parent.errors.read_text() == "train: the process that started this run has ended\n"


def test_a_stage_whose_dvc_lives_works(start: Start, tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(STAGE % "pass")
    parent = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, 'child.py']))"
    stage = start(parent, DVC_STAGE="train@tiny")
    assert stage.ended() == (0, [])
    assert (tmp_path / "output").exists()


@ON_LINUX
@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash", "/bin/dash"])
def test_ctrl_c_under_dvc_reaches_the_stage_through_its_shell(shell: str, start: Start, tmp_path: Path) -> None:
    """A terminal sends SIGINT to the whole process group: the shell must not hide the stage's status."""
    if not Path(shell).exists():
        pytest.skip(f"no {shell} here")
    stage = start(STAGE % "for _ in stop.at_steps(range(3)): wait()", through=(shell, "-c"))
    stage.until("working")
    os.killpg(stage.pid, signal.SIGINT)
    wait_until(lambda: stage.errors.read_text().count("\n") == 1)
    (tmp_path / "go on").touch()
    assert stage.ended()[0] in (130, -signal.SIGINT)
    assert files(tmp_path) == set()
