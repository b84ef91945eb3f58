"""Runs in processes of their own, which can be killed where a test says, and started again.

`Processes` keeps one clean process that has imported everything and computed nothing. It forks a new one for each run:
a run then costs a fraction of a second, and owes nothing to the test's process or to an earlier run. In that fork
anything may be changed before the run begins: a change is a function of this module, by its name and arguments.
"""

import atexit
import dataclasses
import functools
import gc
import hashlib
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from lib import card as cards
from lib import checkpoint, files, metrics, optimizer, progress, source, training
from lib.card import RunCard
from lib.checkpoint import Checkpoints, read_checkpoint
from lib.resnet import ResNet
from stages import train

ROOT = Path(__file__).parents[1]
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
SYSTEM_CALLS = ("open", "write", "fsync", "close", "replace", "unlink", "ftruncate", "mkdir")  # all that lib writes by
AUDITED = {"replace": "os.rename", "unlink": "os.remove", "ftruncate": "os.truncate", "mkdir": "os.mkdir"}
Change = tuple[Any, ...]  # the name of a change, and its arguments


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a process ended: its exit status (minus the signal's number, if one ended it), and what it said."""

    status: int
    out: str
    error: str
    notes: list[list[Any]]

    @property
    def steps(self) -> int:
        """How many steps were trained; the changes must have noted them."""
        return sum(note == ["step"] for note in self.notes)


class Processes:
    """Forks processes off a clean one, which ends with this one."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.crashing"]
        alone = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # see serve()
        pipe = subprocess.PIPE
        self.clean = subprocess.Popen(command, cwd=ROOT, env=alone, stdin=pipe, stdout=pipe, text=True)
        atexit.register(self.clean.communicate)  # it ends when there is nothing more to read

    def start(self, workplace: Path, call: str, *arguments: Any, changes: list[Change]) -> int:
        """Call a function of this module in a new process in that folder; the process's number."""
        return self._ask(workplace=str(workplace), call=call, arguments=arguments, changes=changes)

    def wait(self, process: int, workplace: Path) -> Ended:
        status = self._ask(process=process)
        out, error, notes = (_beside(workplace, kind).read_text() for kind in ("out", "error", "notes"))
        return Ended(status, out, error, [json.loads(line) for line in notes.splitlines()])

    def train(self, workplace: Path, card: RunCard, *changes: Change) -> Ended:
        """python -m stages.train plan/<card>.json in that folder, to its end."""
        return self.wait(self.start(workplace, "call_train", card.name, changes=[*changes]), workplace)

    def _ask(self, **question: Any) -> int:
        assert self.clean.stdin and self.clean.stdout
        print(json.dumps(question), file=self.clean.stdin, flush=True)
        return int(self.clean.stdout.readline())


@functools.cache
def clean_process() -> Processes:
    """One for all tests: to start takes seconds."""
    return Processes()


def _beside(workplace: Path, kind: str) -> Path:
    return workplace.with_name(f"{workplace.name}.{kind}")


# What a run has written.


def make_workplace(folder: Path, data: Path, card: RunCard) -> Path:
    """A working directory for one card."""
    (folder / "data").mkdir(parents=True)
    os.symlink(data.absolute(), folder / "data" / "cifar10")
    card.write(folder / "plan" / f"{card.name}.json")
    return folder


def files_in(workplace: Path) -> set[str]:
    """Every file that a run has written in its working directory, hidden ones too."""
    found = {path for folder in ("checkpoints", "metrics", "models") for path in workplace.glob(f"{folder}/**/*")}
    assert {path.name for path in workplace.iterdir()} <= {"data", "plan", "checkpoints", "metrics", "models"}
    return {str(path.relative_to(workplace)) for path in found if path.is_file()}


def checkpoints_in(workplace: Path) -> list[Path]:
    """The checkpoint files, of the newest epoch first."""
    return sorted(workplace.glob("checkpoints/*/epoch-*.ckpt"), key=lambda path: path.name, reverse=True)


def differences(one: Path, other: Path, card: RunCard) -> list[str]:
    """In what two finished runs of a card differ: bytes of the outputs, and every bit of the last checkpoint."""
    names = (f"metrics/{card.name}.json", f"models/{card.name}.pt")
    found = [name for name in names if (one / name).read_bytes() != (other / name).read_bytes()]
    last = f"epoch-{card.epochs:04}.ckpt"
    states = []
    for workplace in (one, other):
        (path,) = workplace.glob(f"checkpoints/{card.name}-*/{last}")
        snapshot = read_checkpoint(path)
        states.append({"weights": snapshot.model, "optimizer": snapshot.optimizer, "history": snapshot.history})
    return found + [what for what in states[0] if not same(states[0][what], states[1][what])]


def same(one: Any, other: Any) -> bool:
    """Whether two structures are equal in every type, key and bit; 0.0 and -0.0 are not."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        alike = (one.dtype, one.shape, one.stride()) == (other.dtype, other.shape, other.stride())
        return alike and torch.equal(one, other) and torch.equal(one.signbit(), other.signbit())
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return repr(one) == repr(other)


# What may be called in a new process.


def call_train(name: str) -> None:
    sys.argv = ["train", f"plan/{name}.json"]
    train.main()


def call_hold(root: str, run: str) -> None:
    """Hold a run's checkpoint folder until killed; note when it is held."""
    with Checkpoints(Path(root), run, IDENTITY).held():
        note("held")
        time.sleep(600)


IDENTITY: dict[str, Any] = {"schema": 1, "card": {"seed": 3}, "data": "d" * 64, "code": {"lib/ic.py": "c" * 64}}


# Changes: to where a process ends.


def on_system_calls(seen: Callable[..., Any]) -> None:
    """Have seen(name, the real one, *arguments) called instead of each system call that writes."""

    def instead(name: str, real: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        if name == "open" and not arguments[1] & WRITING:
            return real(*arguments, **options)
        return seen(name, real, *arguments, **options)

    for name in SYSTEM_CALLS:
        setattr(os, name, functools.partial(instead, name, getattr(os, name)))


def noting_system_calls() -> None:
    """Note every system call that writes, and what it finds; and, apart from that, what Python's audit sees written."""
    here = os.getcwd()

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, int) or not flags & WRITING:
                return
        elif event not in {*AUDITED.values(), "os.link", "os.symlink", "os.rmdir", "os.chmod", "os.utime"}:
            return
        path = arguments[0] if isinstance(arguments[0], int) else os.path.abspath(os.fsdecode(arguments[0]))
        if isinstance(path, int) or path.startswith(here):
            note("audit", event)

    def seen(name: str, real: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        what = arguments[-1] if name == "replace" else arguments[0]
        path = os.readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else str(what)
        note("call", name, path, _state())
        return real(*arguments, **options)

    on_system_calls(seen)
    sys.addaudithook(audit)


def _state() -> str:
    """What a process that is killed now leaves of its outputs: every name and every byte."""
    digest = hashlib.sha256()
    for top in ("checkpoints", "metrics", "models"):
        for folder, _, names in sorted(os.walk(top)):
            for path in (folder, *(os.path.join(folder, name) for name in sorted(names))):
                digest.update(path.encode() + b"\0")
                if path != folder:
                    with open(path, "rb") as file:
                        digest.update(hashlib.sha256(file.read()).digest())
    return digest.hexdigest()


def crashing(at: int, half: bool) -> None:
    """SIGKILL before the so-manieth system call that writes, or when it is half done: after half of the bytes."""
    count = itertools.count(1)

    def seen(name: str, real: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        if next(count) != at:
            return real(*arguments, **options)
        try:
            if half and name == "write":
                descriptor, content = arguments
                real(descriptor, bytes(content)[: len(content) // 2])
            elif half:
                real(*arguments, **options)
        finally:  # a folder that is there already is an error, too
            os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("nothing is run after SIGKILL")

    on_system_calls(seen)


def signalled_after_epochs(count: int, number: int) -> None:
    """Get a signal when this process has finished so many epochs."""
    ended = itertools.count(1)
    _before(progress.Progress, "epoch", lambda *_: os.kill(os.getpid(), number) if next(ended) == count else None)


def signalled_at_step(at: int, number: int) -> None:
    """Get a signal just before this process's so-manieth step."""
    steps = itertools.count(1)
    _before(training, "train_step", lambda *_: os.kill(os.getpid(), number) if next(steps) == at else None)


def doing(code: str) -> None:
    """Run a test's own code first; it may die()."""
    exec(code, {"os": os, "train": train, "die": lambda: os.kill(os.getpid(), signal.SIGKILL)})


def with_files_of_at_most(size: int) -> None:
    """The disk is full at so many bytes: a file that would grow past them gets EFBIG."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


# Changes: to what is noted.


def noting_steps() -> None:
    _before(training, "train_step", lambda *_: note("step"))


# Changes that a resumed run must not survive unnoticed: the tests' negative controls.


def writing_in_place() -> None:
    """Files are written where they are to be, without a temporary one."""

    def write_whole(path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        files._write_through(path, content)

    for module in (files, checkpoint, metrics, train):
        module.write_whole = write_whole


def deleting_before_writing() -> None:
    """Old checkpoints are deleted before the new one is written."""
    _before(Checkpoints, "save", lambda self, snapshot: [os.unlink(self.path(each)) for each in self.epochs(10**9)])


def leaving_temporary_files() -> None:
    """A run does not sweep what a killed one left."""
    Path.glob = lambda *_: iter(())


def writing_by_other_means() -> None:
    """Something writes past the system calls that a crash can be put at."""
    _before(Checkpoints, "save", lambda self, _: (self.folder / "log").write_text("a line"))


def without_optimizer_state() -> None:
    for each in (optimizer.Adam, optimizer.SGD):
        each.load_state_dict = lambda *_: None


def without_buffers() -> None:
    """Resuming restores the weights alone: running statistics start anew."""
    load = ResNet.load_state_dict

    def weights_only(self: ResNet, state: dict[str, torch.Tensor]) -> Any:
        return load(self, {**state, **{name: each.clone() for name, each in self.named_buffers()}})

    ResNet.load_state_dict = weights_only


def seeds_counted_from_the_process(purpose: str) -> None:
    """The seed of a process's n-th epoch is that of epoch n: right in a straight run, wrong in a resumed one."""
    real, epochs = RunCard.seed_for, [0]

    def seed_for(self: RunCard, wanted: str, epoch: int = 0, step: int = 0) -> int:
        if wanted == purpose:
            epochs[0] += step <= 1
            epoch = epochs[0]
        return real(self, wanted, epoch, step)

    RunCard.seed_for = seed_for


def one_stream_of_random_numbers() -> None:
    """Random numbers are seeded once a process, not once an epoch."""
    real, count = torch.manual_seed, itertools.count()
    torch.manual_seed = lambda seed: real(seed) if next(count) == 0 else None


def on_threads(count: int) -> None:
    torch.set_num_threads(count)


def forgetting_the_threads() -> None:
    """Resuming does not take the number of threads that the run began with."""
    train.threads_for = lambda _: torch.get_num_threads()


# Changes that make it another run.


def of_schema(number: int) -> None:
    cards.SCHEMA = number


def with_other_code(name: str) -> None:
    """One source file means something else."""
    real = source.digest
    source.digest = lambda path: "0" * 64 if str(path).endswith(name) else real(path)


def _before(owner: Any, name: str, first: Callable[..., Any]) -> None:
    """Have first(*arguments) called before a function of that module or class, each time."""
    real = getattr(owner, name)

    def both(*arguments: Any) -> Any:
        first(*arguments)
        return real(*arguments)

    setattr(owner, name, both)


# The clean process.

_write = os.write
_notes: list[int] = []


def note(*what: Any) -> None:
    """Write a line for the test; a process that is killed next has written it."""
    _write(_notes[0], (json.dumps(what) + "\n").encode())


def serve() -> None:
    """Start processes and wait for them, as standard input says; a number is the answer to each line.

    A fork has no thread but the one that forks: no second one may exist by then, NumPy's for OpenBLAS included. Where
    a fork has two of its own, they wait without spinning, for the sake of whoever else needs the cores.
    """
    torch.set_num_threads(1)
    source.digest = functools.cache(source.digest)  # of the code that is run, though a file be changed meanwhile
    for name in train.DECIDES_RESULTS:
        source.digest(train.ROOT / name)
    assert len(os.listdir("/proc/self/task")) == 1
    gc.freeze()  # no fork need copy all there is only to look for garbage in it
    for line in sys.stdin:
        question = json.loads(line)
        if "process" in question:
            answer = os.waitstatus_to_exitcode(os.waitpid(question["process"], 0)[1])
        elif not (answer := os.fork()):
            _run(Path(question["workplace"]), question["call"], question["arguments"], question["changes"])
        print(answer, flush=True)


def _run(workplace: Path, call: str, arguments: list[Any], changes: list[list[Any]]) -> None:
    """The forked process: never returns."""
    status = 0
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        out, error, notes = (os.open(_beside(workplace, kind), flags) for kind in ("out", "error", "notes"))
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(error, 2)
        _notes.append(notes)
        os.chdir(workplace)
        # What takes most of so short a run: a stopwatch's trial steps, and waiting for the disk, which a killed
        # process's files do not need: the kernel has them.
        training.seconds_per_step = lambda *_: 0.0
        os.fsync = lambda _: None
        for change, *values in changes:
            globals()[change](*values)
        globals()[call](*arguments)
    except SystemExit as ended:
        status = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
        status = 70
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


# The sweep over all places to crash.


@dataclasses.dataclass(frozen=True)
class Point:
    """A place to crash, and how many epochs are safe when it is reached."""

    at: int
    half: bool
    call: str
    safe: int

    def __str__(self) -> str:
        return f"{'half-way through' if self.half else 'before'} call {self.at}, {self.call}"


def points_of(ended: Ended) -> list[Point]:
    """Every state in which a kill can leave what a run writes, once: before a system call and half-way through a write.

    Before a call that finds what the one before it found (after fsync, say, or close) a kill leaves the same again.
    """
    points, safe, before = [], 0, None
    calls = [note[1:] for note in ended.notes if note[0] == "call"]
    for at, (name, path, state) in enumerate(calls, start=1):
        if state != before:
            points.append(Point(at, False, f"{name} {path}", safe))
        before = state
        safe += name == "replace" and path.endswith(".ckpt")
        if name == "write" or at == len(calls):
            points.append(Point(at, True, f"{name} {path}", safe))
    return points


def unaccounted(ended: Ended) -> Counter[str]:
    """What Python's audit saw written, and no system call that a crash can be put at did."""
    calls = Counter(AUDITED.get(note[1], note[1]) for note in ended.notes if note[0] == "call")
    return Counter(note[1] for note in ended.notes if note[0] == "audit") - calls


class Sweep:
    """Crashes of one card's run, each followed by a rerun that is compared with the straight run."""

    def __init__(self, processes: Processes, card: RunCard, data: Path, folder: Path, *changes: Change) -> None:
        self.processes, self.card, self.data, self.folder, self.changes = processes, card, data, folder, changes
        self.straight = make_workplace(folder / "straight", data, card)
        self.ended = processes.train(self.straight, card, ("noting_system_calls",), *changes)
        assert self.ended.status == 0, self.ended.error
        self.points = points_of(self.ended)
        self.injected = 0
        self.failed: list[Point] = []
        self.faults: list[str] = []

    def crash(self, point: Point, *, again: list[int] | None = None) -> None:
        """Crash there (and then in the rerun, at each of those calls); run again; note what is wrong."""
        workplace = make_workplace(self.folder / "crashed", self.data, self.card)
        faults = self._crash(workplace, point.at, point.half, point.safe)
        for at in again or []:
            faults += self._crash(workplace, at, True, None)
        done = newest_sound(workplace)
        ended = self.processes.train(workplace, self.card, ("noting_steps",), *self.changes)
        if ended.status:
            faults.append(f"the rerun ended with {ended.status}: {ended.error}")
        else:
            steps = -(-self.card.train_images // self.card.batch_size) * (self.card.epochs - done)
            if ended.steps != steps:
                faults.append(f"the rerun trained {ended.steps} steps, not {steps}")
            # A process killed after its last checkpoint leaves one too many, which the next epoch would delete.
            other_files = files_in(workplace) ^ files_in(self.straight)
            if other := [name for name in other_files if not name.endswith("epoch-0001.ckpt")]:
                faults.append(f"other files: {other}")
            faults += [f"another {what}" for what in differences(workplace, self.straight, self.card)]
        self.failed += [point] if faults else []
        self.faults += [f"{point}: {fault}" for fault in faults]
        _remove(workplace)

    def _crash(self, workplace: Path, at: int, half: bool, safe: int | None) -> list[str]:
        ended = self.processes.train(workplace, self.card, ("crashing", at, half), *self.changes)
        if ended.status != -signal.SIGKILL:
            return [f"it was not killed at call {at}: {ended.status} {ended.error}"]
        self.injected += 1
        return list(self._faults(workplace, safe))

    def _faults(self, workplace: Path, safe: int | None) -> Iterator[str]:
        """What must never be seen, even before the rerun: half a file, or less than was safe already."""
        path = workplace / "metrics" / f"{self.card.name}.json"
        try:
            history = metrics.read_metrics(path).history if path.exists() else ()
            if abs(len(history) - newest_sound(workplace)) > 1:
                yield "metrics and checkpoints are not in step"
        except files.BadInput as error:
            yield str(error)
        model = f"models/{self.card.name}.pt"
        if (workplace / model).exists() and (workplace / model).read_bytes() != (self.straight / model).read_bytes():
            yield "half a model"
        found = checkpoints_in(workplace)
        for each in found:
            try:
                read_checkpoint(each)
            except files.BadInput as error:
                yield str(error)
        if safe is not None and (newest_sound(workplace) != safe or len(found) < min(safe, checkpoint.KEPT)):
            yield f"{safe} epochs were safe, and there are {[path.name for path in found]}"


def newest_sound(workplace: Path) -> int:
    """The last epoch that has a sound checkpoint; 0 where none has."""
    for path in checkpoints_in(workplace):
        try:
            return read_checkpoint(path).epoch
        except files.BadInput:
            continue
    return 0


def _remove(workplace: Path) -> None:
    """Take a workplace away, the data behind the link excepted."""
    for folder, _, names in os.walk(workplace, topdown=False):
        for name in names:
            os.unlink(Path(folder, name))
        for path in Path(folder).iterdir():
            if path.is_symlink():
                path.unlink()
        os.rmdir(folder)


if __name__ == "__main__":
    serve()
