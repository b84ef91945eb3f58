"""The fault table: everything known to go wrong on a way of many hours, what is promised then, and the check of it.

A row is `@fault(number, what goes wrong, what is promised)` over a function that makes it happen and looks. Rows that
only DVC as a whole can show are checked here in small and name the file that checks them in full.
"""

import contextlib
import dataclasses
import errno
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from dvc.fs import localfs
from dvc.rwlock import rwlock

from lib import cifar10, files, obtain, synthetic
from lib.card import RunCard
from lib.errors import BadInput
from lib.files import canonical_json
from lib.machine.device import Circumstances
from lib.metrics import EpochRecord, RunFacts, read_metrics, write_metrics
from lib.recipe import OF_THE_STUDY
from stages import download, plan, report, train
from tests.crashing import clean_process
from tests.making import CARD as MAKING
from tests.making import IC_CARD
from tests.runs import recipe_of

REPOSITORY = Path(__file__).resolve().parents[1]
CARD = dataclasses.replace(MAKING, epochs=3)
METRICS, MODEL = Path("metrics", f"{CARD.name}.json"), Path("models", f"{CARD.name}.pt")
BAD_INPUT, TRY_AGAIN = 2, 75


# ---- the bench: a working directory with small data, in which stages run as their commands run them


@dataclasses.dataclass(frozen=True)
class Ended:
    status: int
    out: str
    lines: list[str]  # on standard error


class Bench:
    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], whole: dict[str, bytes]
    ) -> None:
        self.folder, self.monkeypatch, self.capsys = folder, monkeypatch, capsys
        self.whole = whole  # what CARD's run writes where nothing goes wrong

    def train(self, card: RunCard = CARD) -> Ended:
        card.write(Path("plan", f"{card.name}.json"))
        return self.stage(train.main, f"plan/{card.name}.json")

    def stage(self, main: Callable[[], None], *arguments: str) -> Ended:
        self.capsys.readouterr()
        status = 0
        with self.monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["stage", *arguments])
            try:
                main()
            except SystemExit as ending:
                status = ending.code
        out, error = self.capsys.readouterr()
        return Ended(status, out, error.splitlines())

    def killed(self, before: str) -> None:
        """Train in a process of its own that is killed, as by kill -9, where code that runs in it before says so."""
        CARD.write(Path("plan", f"{CARD.name}.json"))
        done = clean_process().train(self.folder, CARD, ("doing", before))
        assert (done.status, done.error) == (-signal.SIGKILL, "")

    def trained_for(self, epochs: int) -> None:
        """Checkpoints up to an epoch, as after an interruption right then: no outputs are left."""
        assert self.train(dataclasses.replace(CARD, epochs=epochs)).status == 0
        shutil.rmtree("metrics")
        shutil.rmtree("models")

    def in_epoch(self, epoch: int, act: Callable[[], Any]) -> contextlib.AbstractContextManager[None]:
        """While it holds, act in the middle of a training step of that epoch, once."""

        @contextlib.contextmanager
        def patched() -> Iterator[None]:
            now, step = [0], train.training.train_step
            todo = [act]

            def acting(model: Any, optimizer: Any, *rest: Any) -> None:
                if now[0] == epoch and todo:
                    todo.pop()()
                step(model, optimizer, *rest)

            rate = train.training.learning_rate
            with self.monkeypatch.context() as patch:
                patch.setattr(
                    train.training,
                    "learning_rate",
                    lambda recipe, epoch: now.__setitem__(0, epoch) or rate(recipe, epoch),
                )
                patch.setattr(train.training, "train_step", acting)
                yield
            assert not todo, "it never came to that epoch"

        return patched()

    def full_disk_for(self, part: str, error: int = errno.ENOSPC) -> contextlib.AbstractContextManager[None]:
        """While it holds, a file whose name has that part is written by half, then there is no room."""
        write = files._write_through

        def half(path: Path, content: bytes) -> None:
            if part not in str(path):
                return write(path, content)
            write(path, content[: len(content) // 2])
            raise OSError(error, os.strerror(error))

        return self.patched(files, "_write_through", half)

    @contextlib.contextmanager
    def patched(self, target: Any, name: str, value: Any) -> Iterator[None]:
        with self.monkeypatch.context() as patch:
            patch.setattr(target, name, value)
            yield

    # What is to be seen afterwards.

    def written(self) -> dict[str, bytes]:
        return written(self.folder)

    def checkpoint(self, epoch: int) -> Path:
        (path,) = self.folder.glob(f"checkpoints/{CARD.name}-*/epoch-{epoch:04}.ckpt")
        return path

    def epochs_kept(self) -> list[int]:
        return sorted(int(path.stem[-4:]) for path in self.folder.glob("checkpoints/*/epoch-*.ckpt"))

    def assert_goes_on_to_the_same_end(self, after: int, lines: int = 0) -> Ended:
        """The same command trains what is left, and its outputs are an undisturbed run's, bit for bit."""
        ended = self.train()
        assert ended.status == 0
        assert len(ended.lines) == lines
        assert ended.out.count("  epoch ") == CARD.epochs - after
        assert self.written() == self.whole
        assert not list(self.folder.rglob("*.tmp")) + list(self.folder.rglob("*.probe"))
        return ended


def written(folder: Path) -> dict[str, bytes]:
    paths = [path for name in ("metrics", "models") for path in (folder / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def assert_refused(ended: Ended, status: int, *words: str) -> None:
    """One line, which names what is wrong and the cure, and the status that goes with it."""
    assert ended.status == status
    assert len(ended.lines) == 1
    assert re.match(r"(train|plan|download|report): ", ended.lines[0])
    for word in words:
        assert word in ended.lines[0]


def tree(folder: Path) -> dict[str, tuple[int, int, bytes | None]]:
    """All that there is in a folder, and whether somebody touched it."""
    return {
        str(path): (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in (folder, *folder.rglob("*"))
    }


pytestmark = pytest.mark.usefixtures("process_as_it_was")


@pytest.fixture(scope="module")
def whole(pristine_stand_in: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What CARD's run writes where nothing goes wrong."""
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copytree(pristine_stand_in, folder / "data" / "cifar10")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        CARD.write(Path("plan", f"{CARD.name}.json"))
        patch.setattr(sys, "argv", ["train", f"plan/{CARD.name}.json"])
        train.main()
    assert set(written(folder)) == {str(METRICS), str(MODEL)}
    return written(folder)


@pytest.fixture
def bench(
    stand_in: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    whole: dict[str, bytes],
) -> Bench:
    folder = tmp_path / "bench"
    (folder / "data").mkdir(parents=True)
    os.rename(stand_in, folder / "data" / "cifar10")
    monkeypatch.chdir(folder)
    return Bench(folder, monkeypatch, capsys, whole)


# ---- the table

Check = Callable[[Bench], None]


@dataclasses.dataclass(frozen=True)
class Row:
    what: str
    promise: str
    check: Check
    slow: bool  # it starts a process, which takes seconds to import PyTorch


FAULTS: dict[int, Row] = {}


def fault(number: int, what: str, promise: str, slow: bool = False) -> Callable[[Check], Check]:
    def enter(check: Check) -> Check:
        assert number not in FAULTS
        FAULTS[number] = Row(what, promise, check, slow)
        return check

    return enter


@fault(
    1,
    "kill -9 in an epoch",
    "goes on after the last whole epoch, to the same bits (every epoch: test_resume.py)",
    slow=True,
)
def _(bench: Bench) -> None:
    bench.killed(
        "rate = train.training.learning_rate; step = train.training.train_step; now = []\n"
        "train.training.learning_rate = lambda recipe, epoch: now.append(epoch) or rate(recipe, epoch)\n"
        "train.training.train_step = lambda *rest: die() if now[-1:] == [2] else step(*rest)"
    )
    assert bench.epochs_kept() == [1]
    bench.assert_goes_on_to_the_same_end(after=1)


@fault(
    2,
    "kill -9 in a checkpoint",
    "the one before counts, the rest is swept (every system call: test_crashes.py)",
    slow=True,
)
def _(bench: Bench) -> None:
    bench.killed(
        "write = os.write; named = lambda file: os.readlink(f'/proc/self/fd/{file}')\n"
        "os.write = lambda file, data: (write(file, data[:9999]), die()) if 'epoch-0002' in named(file) else "
        "write(file, data)"
    )
    assert bench.epochs_kept() == [1]
    (half,) = bench.folder.glob("checkpoints/*/.epoch-0002.ckpt.*.tmp")
    assert half.stat().st_size == 9999
    bench.assert_goes_on_to_the_same_end(after=1)


@fault(3, "power cut", "a file is on disk before its name is, and its name before an older one goes; zeros are noticed")
def _(bench: Bench) -> None:
    seen: list[tuple[str, Any]] = []  # (what was done, to which inode or path)
    sync, replace, unlink = os.fsync, os.replace, os.unlink

    def noting_sync(file: int) -> None:
        seen.append(("sync", os.fstat(file).st_ino))
        sync(file)

    def noting_replace(old: Path, new: Path) -> None:
        seen.append(("name", (os.stat(old).st_ino, os.stat(Path(new).parent).st_ino)))
        replace(old, new)

    def noting_unlink(path: Path) -> None:
        if str(path).endswith(".ckpt"):
            seen.append(("delete", path))
        unlink(path)

    with bench.monkeypatch.context() as patch:
        for name, noting in [("fsync", noting_sync), ("replace", noting_replace), ("unlink", noting_unlink)]:
            patch.setattr(os, name, noting)
        assert bench.train().status == 0
    named = [index for index, (what, _) in enumerate(seen) if what == "name"]
    assert len(named) >= 3 * 2 + 2  # a checkpoint and the metrics an epoch, the card, the model
    for index in named:
        file, folder = seen[index][1]
        assert seen[index - 1] == ("sync", file)
        assert seen[index + 1] == ("sync", folder)
    assert [what for what, _ in seen].count("delete") == 1  # of three, two stay
    size = bench.checkpoint(3).stat().st_size
    bench.checkpoint(3).write_bytes(bytes(size))  # what some file systems leave after a power cut
    bench.assert_goes_on_to_the_same_end(after=2, lines=1)


@fault(4, "SIGTERM (a preempted machine)", "stops at the next step, exit 143, no model; goes on to the same bits")
def _(bench: Bench) -> None:
    assert_stops_and_goes_on(bench, signal.SIGTERM)


@fault(5, "Ctrl-C", "the same, exit 130: dvc must not take it for done")
def _(bench: Bench) -> None:
    assert_stops_and_goes_on(bench, signal.SIGINT)


def assert_stops_and_goes_on(bench: Bench, number: signal.Signals) -> None:
    with bench.in_epoch(2, lambda: os.kill(os.getpid(), number)):
        ended = bench.train()
    assert_refused(ended, 128 + number, number.name, "the same command goes on")
    assert set(bench.written()) == {str(METRICS)}
    assert len(read_metrics(METRICS).history) == 1
    bench.assert_goes_on_to_the_same_end(after=1)


@fault(6, "disk full: checkpoint", "exit 2, the file and its bytes are named; older ones are intact")
def _(bench: Bench) -> None:
    bench.trained_for(1)
    before = bench.checkpoint(1).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # the kernel itself refuses to write more
    try:
        ended = bench.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_refused(ended, BAD_INPUT, "epoch-0002.ckpt", "bytes could not be written", "free some space")
    assert bench.epochs_kept() == [1]
    assert bench.checkpoint(1).read_bytes() == before
    assert not list(bench.folder.rglob("*.tmp"))
    bench.assert_goes_on_to_the_same_end(after=1)
    shutil.rmtree("checkpoints")
    with bench.patched(os, "ftruncate", lambda *_: raising(OSError(errno.ENOSPC, "No space left on device"))()):
        assert_refused(bench.train(), BAD_INPUT, "checkpoints", "No space left", "free some space")  # to say who trains
    bench.assert_goes_on_to_the_same_end(after=0)


@fault(7, "disk full: metrics, model, figure, plan", "the same; the file is the old one, whole, or not there")
def _(bench: Bench) -> None:
    bench.trained_for(1)
    with bench.full_disk_for(f"metrics/.{METRICS.name}.{os.getpid()}."):
        assert_refused(bench.train(), BAD_INPUT, METRICS.name, "No space left")
    assert bench.written() == {}
    bench.train(dataclasses.replace(CARD, epochs=1))
    old = bench.written()
    with bench.full_disk_for(f"models/.{MODEL.name}.{os.getpid()}."):
        assert_refused(bench.train(), BAD_INPUT, MODEL.name, "No space left")
    assert bench.written()[str(MODEL)] == old[str(MODEL)]
    bench.assert_goes_on_to_the_same_end(after=3)
    write_study(bench, {CARD.name: "2.14.1"})
    Path("plots").mkdir()
    Path("plots", "figure4.png").write_bytes(b"the old figure")
    with bench.full_disk_for("figure4.png"):
        assert_refused(bench.stage(report.main), BAD_INPUT, "figure4.png", "No space left")
    assert Path("plots", "figure4.png").read_bytes() == b"the old figure"
    before = tree(Path("plan"))
    Path("params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())
    with bench.full_disk_for("plan/."):
        assert_refused(bench.stage(plan.main), BAD_INPUT, "plan/", "No space left")
    assert {path: entry for path, entry in tree(Path("plan")).items() if path != "plan"}.items() <= before.items()


@fault(8, "free space known to be short", "exit 2 before the first epoch")
def _(bench: Bench) -> None:
    little = shutil._ntuple_diskusage(10**12, 10**12 - 10**6, 10**6)
    with bench.patched(shutil, "disk_usage", lambda _: little):
        assert_refused(bench.train(), BAD_INPUT, "MB left", "make room")
    assert bench.epochs_kept() == []
    assert bench.written() == {}


def official_world(bench: Bench) -> bytes:
    """Make the bench's data the official ones, and give the archive of them."""
    folder = Path("data", "cifar10", cifar10.FOLDER)
    contents = {file: (folder / file).read_bytes() for file in cifar10.OFFICIAL_FILES}
    known = {file: (len(content), cifar10.hashlib.sha256(content).hexdigest()) for file, content in contents.items()}
    bench.monkeypatch.setattr(cifar10, "OFFICIAL_FILES", known)
    return archive_of(contents)


def archive_of(contents: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for file, content in contents.items():
            member = tarfile.TarInfo(f"{cifar10.FOLDER}/{file}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def assert_source_refused(bench: Bench, archive: bytes, *words: str) -> None:
    """The download from an archive is refused, and the data that are there stay untouched and alone."""
    bench.folder.joinpath("source.tar.gz").write_bytes(archive)
    Path("plan").mkdir(exist_ok=True)
    Path("plan", "study.json").write_bytes(canonical_json({"dataset": "cifar10"}))
    bench.monkeypatch.setenv("CIFAR10_SOURCE", "source.tar.gz")
    before = tree(Path("data", "cifar10"))
    assert_refused(bench.stage(download.main), BAD_INPUT, "source.tar.gz", "set CIFAR10_SOURCE", *words)
    assert tree(Path("data", "cifar10")) == before
    assert os.listdir("data") == ["cifar10"]


@fault(9, "truncated download", "exit 2, nothing of it is used (broken connections: test_obtain.py)")
def _(bench: Bench) -> None:
    archive = official_world(bench)
    for part in (0.3, 0.9):
        assert_source_refused(bench, archive[: int(part * len(archive))])


@fault(
    10, "a flipped bit in the data", "exit 2 before the first epoch, the file is named, though dvc calls it unchanged"
)
def _(bench: Bench) -> None:
    path = Path("data", "cifar10", cifar10.FOLDER, "data_batch_2")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    path.chmod(0o444)  # a mode that DVC takes for a proof
    assert_refused(bench.train(), BAD_INPUT, str(path), "SHA-256", "dvc repro")
    assert bench.written() == {} and bench.epochs_kept() == []


@fault(11, "a mirror with other content", "exit 2, expected and found are named; there is no list of mirrors to try")
def _(bench: Bench) -> None:
    official_world(bench)
    other = {file: b"x" * size for file, (size, _) in cifar10.OFFICIAL_FILES.items()}
    expected = next(iter(cifar10.OFFICIAL_FILES.values()))[1][:12]
    found = cifar10.hashlib.sha256(next(iter(other.values()))).hexdigest()[:12]
    assert_source_refused(bench, archive_of(other), "data_batch_1", expected, found)


@fault(12, "a checkpoint of other parameters, data, code or format", "one line says what differs; never mixed")
def _(bench: Bench) -> None:
    short = dataclasses.replace(CARD, epochs=1)
    slower = dataclasses.replace(short, learning_rate=0.0001)

    def of_other_data() -> Ended:
        batches = synthetic.generate(8, 40)
        cifar10.write_stand_in(Path("data/cifar10"), synthetic.NAME, batches, synthetic.CLASSES)
        return bench.train(short)

    def of_other_code() -> Ended:
        anew = bench.patched(train, "code_digests", train.code_digests.__wrapped__)  # it asks once in a process
        with anew, bench.patched(train.source, "digest", lambda path: f"of another {path.name}"):
            return bench.train(short)

    def of_another_format() -> Ended:
        with bench.patched(sys.modules["lib.card"], "SCHEMA", 10**6):
            return bench.train(short)

    bench.train(short)
    for other, differs in [
        (of_other_code, "lib/batches.py, lib/card.py"),
        (of_another_format, "schema"),
        (lambda: bench.train(slower), "learning_rate"),
        (of_other_data, "data"),
    ]:
        ended = other()
        assert ended.status == 0
        assert "goes on" not in ended.out and "nothing is left" not in ended.out
        assert any(f"with another {differs}" in line and line.endswith("not used") for line in ended.lines)
    assert len(list(Path("checkpoints").iterdir())) == 5  # each its own


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: list[Callable[[Path], Any]] = [
    flipped,
    lambda path: path.write_bytes(bytes(path.stat().st_size)),
    lambda path: path.write_bytes(path.read_bytes()[:-1]),
    lambda path: path.write_bytes(b""),
    a_folder,
]


@fault(
    13, "the newest checkpoint is damaged", "one line; it is set aside, the one before counts, the bits are the same"
)
def _(bench: Bench) -> None:
    bench.trained_for(2)
    keep = shutil.copytree("checkpoints", "kept")
    for damage in DAMAGES:
        shutil.rmtree("checkpoints")
        shutil.copytree(keep, "checkpoints")
        damage(bench.checkpoint(2))
        (line,) = bench.assert_goes_on_to_the_same_end(after=1, lines=1).lines
        assert "epoch-0002.ckpt is damaged" in line and "set aside" in line
        assert bench.checkpoint(3).with_name("epoch-0002.damaged").exists()


@fault(14, "both checkpoints are damaged", "a loud line; the run starts anew")
def _(bench: Bench) -> None:
    bench.trained_for(2)
    for epoch in (1, 2):
        flipped(bench.checkpoint(epoch))
    *each, loud = bench.assert_goes_on_to_the_same_end(after=0, lines=3).lines
    assert [line.count("is damaged") for line in each] == [1, 1]
    assert "NO SOUND CHECKPOINT" in loud and "starts anew" in loud


@fault(15, "another PyTorch or device", "a loud line, the metrics name both; a finished run is collected as it was")
def _(bench: Bench) -> None:
    elsewhere = Circumstances("9.9.9", "NVIDIA Z9")
    bench.trained_for(2)
    with bench.patched(train, "circumstances", lambda *_, **__: elsewhere):
        moved = bench.train()
        (line,) = moved.lines
        assert moved.status == 0
        assert "not bit for bit" in line and torch.__version__ in line and "PyTorch 9.9.9 on NVIDIA Z9" in line
        facts = read_metrics(METRICS).facts
        assert (facts.torch, facts.device) == (f"{torch.__version__} then 9.9.9", "cpu then NVIDIA Z9")
    before = bench.written()
    for name in ("metrics", "models"):
        shutil.rmtree(name)
    collected = bench.train()  # here again, where nothing is left to train
    assert (collected.status, collected.lines) == (0, [])
    assert bench.written() == before


@fault(16, "a loss that is not finite", "exit 2, the last sound epoch is kept, no NaN in any file, no model")
def _(bench: Bench) -> None:
    rule = {"learning_rate_rule": "steps", "learning_rate_steps": (1,), "learning_rate_factor": 1e30}
    assert_refused(bench.train(dataclasses.replace(CARD, **rule)), BAD_INPUT, "epoch 2", "lower learning_rate")
    assert set(bench.written()) == {str(METRICS)}
    assert len(read_metrics(METRICS).history) == 1  # it refuses NaN
    assert bench.epochs_kept() == [1]
    with pytest.raises(ValueError):
        canonical_json({"loss": float("nan")})


@fault(17, "memory runs out", "exit 2, batch_size is named and never changed; the last epoch is kept")
def _(bench: Bench) -> None:
    errors = [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nGPU 0 ..."), MemoryError()]
    for error in errors:
        shutil.rmtree("checkpoints", ignore_errors=True)
        with bench.in_epoch(2, raising(error)):
            assert_refused(bench.train(), BAD_INPUT, "batch_size 16", "params.yaml")
        assert MODEL.exists() is False
        bench.assert_goes_on_to_the_same_end(after=1)
        MODEL.unlink()
    for place, name in ((train.cifar10, "load"), (train, "ResNet")):  # before there is anything to train
        for error in (MemoryError("Unable to allocate 147 MiB"), RuntimeError("can't allocate memory")):
            with bench.patched(place, name, lambda *_, error=error, **__: raising(error)()):
                assert_refused(bench.train(), BAD_INPUT, "out of memory", "params.yaml")


def raising(error: Exception) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def assert_params_refused(bench: Bench, mistakes: list[tuple[str, str, str]]) -> None:
    """Each mistake (what stands there, what somebody made of it, what the line says) leaves the plan as it was."""
    params = (REPOSITORY / "params.yaml").read_text()
    Path("params.yaml").write_text(params)
    assert bench.stage(plan.main).status == 0
    before = tree(bench.folder / "plan")
    assert len(before) == 18
    for right, wrong, words in mistakes:
        assert right in params
        Path("params.yaml").write_bytes(params.replace(right, wrong, 1).encode("utf-8", "surrogateescape"))
        ended = bench.stage(plan.main)
        assert_refused(ended, BAD_INPUT, "params.yaml", words)
        assert ended.out == ""
        assert tree(bench.folder / "plan") == before
    shutil.rmtree("plan")
    assert bench.stage(plan.main).status == BAD_INPUT
    assert not Path("plan").exists()


@fault(18, "params: a mistyped or missing key", "exit 2, the nearest key is named, nothing is written")
def _(bench: Bench) -> None:
    assert_params_refused(
        bench,
        [
            ("dropout_p:", "droput_p:", "did you mean dropout_p?"),
            ("\nepochs: 100", "", "epochs is missing"),
            ("figure_dpi: 150", "figure_dp: 150", "did you mean figure_dpi?"),
            ("    epochs: 3", "    epoch: 3", "did you mean epochs?"),
        ],
    )


@fault(19, "params: a value of the wrong type", "exit 2, key, value and type are named")
def _(bench: Bench) -> None:
    assert_params_refused(
        bench,
        [
            ("dropout_p: 0.05", "dropout_p: '0.05'", "dropout_p: '0.05': expected a number"),
            ("learning_rate: 0.001", "learning_rate: '1e-3'", "write 0.001"),
            ("epochs: 100", "epochs: true", "epochs: True"),
            ("epochs: 100", "epochs: 010", "010 (line"),
            ("epochs: 100", "epochs: 1:40", "1:40 (line"),
            ("batch_size: 64", "batch_size: [64]", "batch_size: [64]"),
        ],
    )


@fault(20, "params: a value out of range", "exit 2 before anything is read or written")
def _(bench: Bench) -> None:
    dropout = [("dropout_p: 0.05", f"dropout_p: {value}", "dropout_p") for value in ("1.5", "-0.1", ".nan", "1.0")]
    epochs = [("epochs: 100", f"epochs: {value}", "epochs") for value in ("0", "-1", "2.5", "1" + "0" * 30)]
    seeds = [("per seed\n- 0", f"per seed\n- {value}", "seeds") for value in (-1, 2**32, 0.5)]
    rate = [("learning_rate: 0.001", "learning_rate: .inf", "learning_rate")]
    factor = [("learning_rate_factor: 0.1", "learning_rate_factor: 1.0e+200", "learning_rate_factor")]
    assert_params_refused(bench, dropout + epochs + seeds + rate + factor)


@fault(21, "params: a network or ordering that there is not", "exit 2 and what there is")
def _(bench: Bench) -> None:
    assert_params_refused(
        bench,
        [
            ("    block: basic", "    block: wide", "'basic' or 'bottleneck'"),
            ("- conv_relu_ic", "- conv_relu_icc", "relu, ic, conv, bn, dropout"),
            ("preset: replication", "preset: replikation", "did you mean replication?"),
            (
                "  replication: {}",
                "  replication: {networks: {resnet111: {block: basic, blocks_per_stage: 1}}}",
                "did you mean resnet110?",
            ),
        ],
    )


@fault(22, "params: not a mapping of keys that stand once", "exit 2, the line is named where there is one")
def _(bench: Bench) -> None:
    whole = (REPOSITORY / "params.yaml").read_text()
    assert_params_refused(
        bench,
        [
            ("epochs: 100", "epochs: 100\nepochs: 200", "the key epochs occurs twice (line"),
            ("# The", "# \udce4", "not readable YAML"),
            ("  figure_dpi", "\tfigure_dpi", "line"),
            (whole, "", "not a mapping"),
            (whole, "- 1\n", "not a mapping"),
        ],
    )


@fault(
    23, "two processes, one run", "the second ends with 75, names the first, touches nothing; the first is undisturbed"
)
def _(bench: Bench) -> None:
    second: list[Ended] = []
    states: list[dict[str, Any]] = []

    def come_second() -> None:
        states.append(tree(bench.folder))
        second.append(bench.stage(train.main, f"plan/{CARD.name}.json"))
        states.append(tree(bench.folder))

    with bench.in_epoch(2, come_second):
        assert bench.train().status == 0
    assert_refused(second[0], TRY_AGAIN, CARD.name, f"process {os.getpid()}", "wait for it, or end it")
    assert states[0] == states[1]
    assert bench.written() == bench.whole


@fault(
    24, "dvc is killed, its training is an orphan", "it ends too (test_stopping.py); until then row 23 holds", slow=True
)
def _(bench: Bench) -> None:
    CARD.write(Path("plan", f"{CARD.name}.json"))
    done = subprocess.run(
        [sys.executable, "-m", "stages.train", f"plan/{CARD.name}.json"],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "DVC_STAGE": "train@tiny"},
        start_new_session=True,  # its parent is none that DVC would be
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "")
    assert done.stderr == "train: the process that started this run has ended\n"
    assert bench.written() == {} and bench.epochs_kept() == []


@fault(25, "a lock that a killed dvc left", "dvc itself sees that its owner is gone (alive: test_doctor.py)")
def _(bench: Bench) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    target = str(bench.folder / "models")
    Path("rwlock").write_text(json.dumps({"write": {target: {"pid": gone.pid, "cmd": "dvc repro"}}}))
    with rwlock(".", localfs, "dvc repro", [], [target], False):
        assert json.loads(Path("rwlock").read_text())["write"][target]["pid"] == os.getpid()


@fault(
    26, "dvc repro is interrupted", "checkpoints are no output, so dvc deletes none; it goes on (in full: test_dvc.py)"
)
def _(bench: Bench) -> None:
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"].values()
    outs = yaml.safe_dump([stage.get(kind) for stage in stages for kind in ("outs", "metrics", "plots")])
    assert "checkpoints" not in outs and "models" in outs
    with bench.in_epoch(3, lambda: os.kill(os.getpid(), signal.SIGINT)):
        assert bench.train().status == 130
    shutil.rmtree("models", ignore_errors=True)  # as dvc does before it runs a stage
    shutil.rmtree("metrics")
    bench.assert_goes_on_to_the_same_end(after=2)


@fault(27, "the clock jumps", "checkpoints are ordered by their epoch, never by time")
def _(bench: Bench) -> None:
    bench.trained_for(2)
    os.utime(bench.checkpoint(1), (2e9, 2e9))
    os.utime(bench.checkpoint(2), (1, 1))
    with bench.patched(time, "time", lambda: 0.0):
        bench.assert_goes_on_to_the_same_end(after=2)


@fault(28, "another day", "no output tells the time or the place: a rerun gives the same bytes")
def _(bench: Bench) -> None:
    later = time.time() + 10**9
    with bench.patched(time, "time", lambda: later):
        bench.assert_goes_on_to_the_same_end(after=0)  # in another folder, another decade
    write_study(bench, {CARD.name: "2.14.1"})
    pictures = []
    for now in (later, 0.0):
        with bench.patched(time, "time", lambda now=now: now):
            assert bench.stage(report.main).status == 0
        pictures.append({path.name: path.read_bytes() for path in Path("plots").iterdir()})
    assert pictures[0] == pictures[1]


@fault(29, "data that may only be read", "works: neither their content nor their folder is touched")
def _(bench: Bench) -> None:
    paths = [path for path in (bench.folder / "data").rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = tree(bench.folder / "data")
    try:
        bench.assert_goes_on_to_the_same_end(after=0)
        assert tree(bench.folder / "data") == before  # root, too, which may write anyway
    finally:
        for path in paths:
            path.chmod(0o755 if path.is_dir() else 0o644)


@fault(30, "an output folder that cannot be written", "exit 2 before the first epoch; one that is missing is made")
def _(bench: Bench) -> None:
    Path("models").write_text("in the way")
    assert_refused(bench.train(), BAD_INPUT, "models", "fix the permissions")
    Path("models").unlink()
    MODEL.mkdir(parents=True)
    assert_refused(bench.train(), BAD_INPUT, str(MODEL), "move it away")
    MODEL.rmdir()
    with bench.full_disk_for("models/", errno.EACCES):
        assert_refused(bench.train(), BAD_INPUT, "models", "Permission denied")
    assert bench.epochs_kept() == []
    assert bench.written() == {}
    Path("models").rmdir()
    bench.assert_goes_on_to_the_same_end(after=0)


@fault(31, "a GPU is asked for and none is there", "exit 2, no silent CPU; auto takes what there is and says so")
def _(bench: Bench) -> None:
    bench.monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device, status in [("cuda", BAD_INPUT), ("auto", 0)]:
        ended = bench.train(dataclasses.replace(CARD, device=device, epochs=1))
        assert ended.status == status
        if status:
            assert_refused(ended, BAD_INPUT, "device: cuda", "params.yaml")
            assert bench.written() == {} and bench.epochs_kept() == []
    assert read_metrics(METRICS).facts.device == "cpu"


@fault(32, "the GPU is lost", "exit 75, the last epoch is kept, the same command goes on to the same bits")
def _(bench: Bench) -> None:
    with bench.in_epoch(3, raising(RuntimeError("CUDA error: unspecified launch failure\nCompile with ..."))):
        assert_refused(bench.train(), TRY_AGAIN, "CUDA error", "goes on from the last whole epoch")
    bench.assert_goes_on_to_the_same_end(after=2)


@fault(33, "metrics that are torn or another run's", "rewritten whole from the checkpoint; the report refuses them")
def _(bench: Bench) -> None:
    bench.trained_for(3)
    for content in (
        bench.whole[str(METRICS)][:100],
        bench.whole[str(METRICS)].replace(b'"seed": 3', b'"seed": 4'),
        b"",
    ):
        write_study(bench, {})
        METRICS.parent.mkdir(exist_ok=True)
        METRICS.write_bytes(content)
        assert_refused(bench.stage(report.main), BAD_INPUT, METRICS.name, "dvc repro")
        bench.assert_goes_on_to_the_same_end(after=3)


def write_study(bench: Bench, runs: dict[str, str], missing: tuple[str, ...] = ()) -> None:
    """plan/study.json of CARD and other runs, and metrics of those runs, by the PyTorch they were trained with."""
    names = [CARD.name, *(name for name in (*runs, *missing) if name != CARD.name)]
    settings = {"preset": "rehearsal", "dataset": "auto", "train_images": 64, "test_images": 40, "epochs": 3}
    study = settings | {"runs": names, "report": {"figure_dpi": 50, "accuracy_from": 0.1}, "recipe": OF_THE_STUDY}
    study["networks"] = {name.split("-")[0]: {"block": "basic", "depth": 8} for name in names}
    Path("plan").mkdir(exist_ok=True)
    Path("plan", "study.json").write_bytes(canonical_json(study))
    for name, version in runs.items():
        network, ordering, seed = name.split("-")
        facts = RunFacts(
            *(network, "basic", 8, ordering, int(seed), "synthetic", 64, 40, 3),
            *(recipe_of(ordering), 1000, version, "cpu"),
        )
        history = [EpochRecord(epoch, 0.001, 1.0, 0.4, 1.1, 0.3) for epoch in (1, 2, 3)]
        write_metrics(Path("metrics", f"{name}.json"), facts, history)


@fault(
    34, "one of the runs fails", "the report is of the others and names it (dvc repro --keep-going: test_dvc_again.py)"
)
def _(bench: Bench) -> None:
    write_study(bench, {CARD.name: "2.14.1", IC_CARD.name: "2.14.1"}, missing=("tiny-relu_conv-3",))
    ended = bench.stage(report.main)
    assert (ended.status, ended.lines) == (0, [])
    assert "missing, train them with `dvc repro`: tiny-relu_conv-3" in ended.out
    assert "2 of 3 runs" in Path("plots", "table1.md").read_text()


@fault(
    35, "results of different PyTorch versions", "legitimate, and a bump makes no training stale: the caption names all"
)
def _(bench: Bench) -> None:
    bench.assert_goes_on_to_the_same_end(after=0)
    assert read_metrics(METRICS).facts.torch == torch.__version__
    write_study(bench, {CARD.name: "2.14.1", IC_CARD.name: "2.9.0 then 2.14.1", "tiny-relu_conv-3": "2.9.0"})
    assert bench.stage(report.main).status == 0
    caption = Path("plots", "table1.md").read_text().splitlines()[0]
    versions = re.search(r"PyTorch (.*), cpu", caption)
    assert versions and set(versions[1].split(" and ")) == {"2.14.1", "2.9.0", "2.9.0 then 2.14.1"}
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
    assert not [path for path in stages["train"]["deps"] if "requirements" in str(path)]


def test_the_table_has_all_rows() -> None:
    assert sorted(FAULTS) == list(range(1, 36))


ROWS = [
    pytest.param(row, id=f"{number:02} {row.what}", marks=[pytest.mark.slow] if row.slow else [])
    for number, row in FAULTS.items()
]


@pytest.mark.parametrize("row", ROWS)
def test_the_promise_is_kept_when(row: Row, bench: Bench) -> None:
    row.check(bench)


def test_the_bench_tells_an_undisturbed_run_from_another(bench: Bench) -> None:
    """The comparison that most rows rest upon can fail."""
    bench.train(dataclasses.replace(CARD, seed=4))
    differs = bench.written() != bench.whole  # apart from the assert: pytest would explain the difference for minutes
    assert differs
    with pytest.raises(AssertionError):
        assert_refused(Ended(2, "", ["train: a", "train: b"]), 2)
    with pytest.raises(BadInput):
        obtain.obtain("cifar10", Path("elsewhere"), "nowhere", Path("nowhere"))
