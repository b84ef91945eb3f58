"""lib/checkpoint.py: what is saved comes back or is refused, the last two are kept, and one process alone writes."""

import dataclasses
import errno
import fcntl
import hashlib
import io
import os
import pickle
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lib import checkpoint, files, lock
from lib.card import RunCard
from lib.checkpoint import HEADER, KEPT, MAGIC, Checkpoints, Snapshot, read_checkpoint
from lib.errors import BadInput, TryAgain
from lib.lock import holder
from lib.machine.device import Circumstances
from lib.metrics import EpochRecord
from tests.crashing import (
    IDENTITY,
    Processes,
    checkpoints_in,
    clean_process,
    differences,
    files_in,
    make_workplace,
    same,
)
from tests.making import IC_CARD

HERE = Circumstances("2.14.1", "cpu", "AVX2", 1)
THERE = Circumstances("2.14.1", "NVIDIA H100")


def snapshot_of(epoch: int, size: int = 1000) -> Snapshot:
    """A snapshot of an epoch, with tensors of every kind that a network or an optimizer has."""
    generator = torch.Generator().manual_seed(epoch)
    weights = torch.randn(size, generator=generator)
    image = torch.randn((2, 3, 4, 4), generator=generator).to(memory_format=torch.channels_last)
    model = {"a.weight": weights, "b.weight": image, "count": torch.tensor(7 * epoch), "half": weights[:3].bfloat16()}
    moments = {0: {"step": torch.tensor(2.0 * epoch), "exp_avg": -weights, "momentum_buffer": None}}
    groups = [{"lr": 0.1 + 0.2, "betas": (0.9, 0.999), "amsgrad": False, "maximize": None, "params": [0]}]
    history = tuple(EpochRecord(each, 1e-3 / 3, 2.3 / each, 0.1, 1e-300, 1.0) for each in range(1, epoch + 1))
    return Snapshot(history, model, {"state": moments, "param_groups": groups}, (THERE, HERE))


@pytest.fixture
def checkpoints(tmp_path: Path) -> Iterator[Checkpoints]:
    """A run's checkpoints, held."""
    made = Checkpoints(tmp_path / "checkpoints", "tiny-baseline-3", IDENTITY)
    with made.held():
        yield made


@pytest.fixture(scope="module")
def processes() -> Processes:
    return clean_process()


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.folder.glob("*.ckpt"))


def save(checkpoints: Checkpoints, *epochs: int) -> None:
    for epoch in epochs:
        checkpoints.save(snapshot_of(epoch))


def assert_is(found: Snapshot | None, epoch: int) -> None:
    assert found is not None
    assert same(vars(found), vars(snapshot_of(epoch)))


# Saving and reading.


@pytest.mark.parametrize("epoch", [1, 12, 12345])
def test_a_snapshot_comes_back_bit_by_bit(epoch: int, checkpoints: Checkpoints) -> None:
    snapshot = dataclasses.replace(snapshot_of(1), history=snapshot_of(1).history * epoch)
    checkpoints.save(snapshot)
    found = checkpoints.newest(epoch)
    assert found is not None
    assert same(vars(found), vars(snapshot))
    assert same(vars(read_checkpoint(checkpoints.path(epoch))), vars(snapshot))


def test_comparing_snapshots_sees_one_bit_and_one_type() -> None:
    for change in (
        {"model": {**snapshot_of(2).model, "count": torch.tensor(15)}},
        {"model": {**snapshot_of(2).model, "count": torch.tensor(14.0)}},
        {"model": {**snapshot_of(2).model, "half": -0.0 * snapshot_of(2).model["half"]}},
        {"circumstances": (HERE,)},
        {"optimizer": {**snapshot_of(2).optimizer, "state": {}}},
    ):
        assert not same(vars(dataclasses.replace(snapshot_of(2), **change)), vars(snapshot_of(2)))


def test_one_snapshot_is_the_same_bytes_whenever_and_wherever_it_is_saved(tmp_path: Path) -> None:
    contents = set()
    for place in ("one", "another, of a longer name"):
        checkpoints = Checkpoints(tmp_path / place, "tiny-baseline-3", IDENTITY)
        with checkpoints.held():
            save(checkpoints, 3)
            contents.add(checkpoints.path(3).read_bytes())
    assert len(contents) == 1


def test_only_the_last_two_are_kept(checkpoints: Checkpoints) -> None:
    for epoch in range(1, 6):
        save(checkpoints, epoch)
        assert names(checkpoints) == [f"epoch-{each:04}.ckpt" for each in range(max(1, epoch - 1), epoch + 1)]


def test_those_past_the_one_saved_stay(checkpoints: Checkpoints) -> None:
    save(checkpoints, 7, 8, 1, 2, 3)
    assert names(checkpoints) == [f"epoch-000{epoch}.ckpt" for epoch in (2, 3, 7, 8)]


def test_an_old_one_is_deleted_only_when_the_new_one_is_durable(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(checkpoints, 1, 2)
    seen: list[tuple[str, list[str]]] = []
    for call in ("replace", "fsync", "unlink"):
        real = getattr(os, call)

        def noting(*arguments: Any, call: str = call, real: Callable[..., None] = real) -> None:
            seen.append((call, names(checkpoints)))
            real(*arguments)

        monkeypatch.setattr(os, call, noting)
    save(checkpoints, 3)
    one, two, three = (f"epoch-000{epoch}.ckpt" for epoch in (1, 2, 3))
    assert seen == [
        ("fsync", [one, two]),
        ("replace", [one, two]),
        ("fsync", [one, two, three]),
        ("unlink", [one, two, three]),
    ]


def test_a_new_one_that_cannot_be_written_costs_no_old_one(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(checkpoints, 1, 2)

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(BadInput, match=r"epoch-0003\.ckpt: .*No space left"):
        patch.setattr(os, "write", full)
        save(checkpoints, 3)
    assert names(checkpoints) == ["epoch-0001.ckpt", "epoch-0002.ckpt"]
    assert_is(checkpoints.newest(9), 2)
    assert not list(checkpoints.folder.glob(".*.tmp"))


def test_an_old_one_that_cannot_be_deleted_is_no_reason_to_stop_and_is_tried_again(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refused)
        save(checkpoints, 1, 2, 3)
    assert len(names(checkpoints)) == 3
    save(checkpoints, 4)
    assert names(checkpoints) == ["epoch-0003.ckpt", "epoch-0004.ckpt"]


# Which one is the newest.


@pytest.mark.parametrize("up_to, epoch", [(10, 10), (99, 10), (9, 9), (8, None)])
def test_the_newest_is_the_last_one_up_to_the_epochs_asked_for(
    up_to: int, epoch: int | None, checkpoints: Checkpoints, capsys: pytest.CaptureFixture[str]
) -> None:
    save(checkpoints, 8, 9, 10)
    found = checkpoints.newest(up_to)
    assert (found.epoch if found else None) == epoch
    assert capsys.readouterr().err == ""


def test_clocks_do_not_decide_which_is_the_newest(checkpoints: Checkpoints) -> None:
    save(checkpoints, 9, 10)  # as text, 9 would be past 10 without the zeros
    for path, seconds in ((checkpoints.path(9), 4_000_000_000), (checkpoints.path(10), 1)):
        os.utime(path, (seconds, seconds))
    assert_is(checkpoints.newest(99), 10)
    save(checkpoints, 11)
    assert names(checkpoints) == ["epoch-0010.ckpt", "epoch-0011.ckpt"]


def test_epochs_of_more_digits_are_past_those_of_fewer(checkpoints: Checkpoints) -> None:
    save(checkpoints, 1)
    for epoch in (9999, 10000):
        shutil.copy(checkpoints.path(1), checkpoints.path(epoch))
    assert checkpoints.epochs(10**9) == [10000, 9999, 1]


@pytest.mark.parametrize(
    "name", ["epoch-1.ckpt", "epoch-0009.ckpt.bak", "epoch-0009.damaged", ".epoch-0009.ckpt.1.tmp", "epoch-abcd.ckpt"]
)
def test_files_of_other_names_are_no_checkpoints(name: str, checkpoints: Checkpoints) -> None:
    save(checkpoints, 1)
    shutil.copy(checkpoints.path(1), checkpoints.folder / name)
    assert checkpoints.epochs(10**9) == [1]


# Damage.


def flip(offset: int) -> Callable[[Path], None]:
    """Damage that turns one bit over."""

    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[offset] ^= 1
        path.write_bytes(content)

    return damage


def zero_a_block(path: Path) -> None:
    """What a disk gives back for a block that it lost."""
    content = path.read_bytes()
    start = len(content) // 2
    assert any(content[start : start + 65536])
    path.write_bytes(content[:start] + bytes(65536) + content[start + 65536 :])


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def of_another_run(path: Path) -> None:
    """A sound checkpoint of the same epoch, of a run with another identity."""
    other = Checkpoints(path.parent.parent, "tiny-baseline-3", {**IDENTITY, "data": "e" * 64})
    other.folder.mkdir()
    other.save(snapshot_of(2, BIG))
    os.replace(other.path(2), path)
    shutil.rmtree(other.folder)


def with_body(body: bytes) -> Callable[[Path], None]:
    """A right header for that content."""
    return lambda path: path.write_bytes(HEADER.pack(MAGIC, hashlib.sha256(body).digest(), len(body)) + body) and None


def torch_bytes(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


BIG = 100_000  # numbers: 400 KB, more than a block
DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "magic": (flip(0), "format"),
    "version": (flip(7), "format"),
    "checksum": (flip(8), "SHA-256"),
    "checksum's end": (flip(39), "SHA-256"),
    "length": (flip(40), "bytes"),
    "length's end": (flip(47), "bytes"),
    "first byte": (flip(48), "SHA-256"),
    "tensor": (flip(200_000), "SHA-256"),
    "another tensor": (flip(600_000), "SHA-256"),
    "last byte": (flip(-1), "SHA-256"),
    "a block of zeros": (zero_a_block, "SHA-256"),
    "all zeros": (lambda path: path.write_bytes(bytes(path.stat().st_size)), "format"),
    "a byte short": (lambda path: os.truncate(path, path.stat().st_size - 1), "bytes"),
    "half": (lambda path: os.truncate(path, path.stat().st_size // 2), "bytes"),
    "header alone": (lambda path: os.truncate(path, HEADER.size), "bytes"),
    "half a header": (lambda path: os.truncate(path, HEADER.size // 2), "48 bytes"),
    "empty": (lambda path: os.truncate(path, 0), "48 bytes"),
    "a byte more": (lambda path: path.write_bytes(path.read_bytes() + b"\0"), "bytes"),
    "a folder": (folder_instead, "directory"),
    "a link to nothing": (lambda path: (path.unlink(), path.symlink_to("nowhere")), "No such file"),
    "another run's": (of_another_run, "another run"),
    "another epoch's": (lambda path: shutil.copy(path.with_name("epoch-0001.ckpt"), path), "of epoch 1"),
    "no pickle": (with_body(b"text"), "no plain values"),
    "a number": (with_body(torch_bytes(7)), ""),
    "nothing in it": (with_body(torch_bytes({})), "fingerprint"),
}


@pytest.mark.parametrize("damage, reason", DAMAGE.values(), ids=DAMAGE)
def test_where_the_newest_is_damaged_the_one_before_is_used_and_that_is_said(
    damage: Callable[[Path], Any], reason: str, checkpoints: Checkpoints, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints.save(snapshot_of(1, BIG))
    checkpoints.save(snapshot_of(2, BIG))
    damage(checkpoints.path(2))
    with pytest.raises(BadInput):
        read_checkpoint(checkpoints.path(2), checkpoints.fingerprint)
    found = checkpoints.newest(9)
    assert found is not None
    assert same(vars(found), vars(snapshot_of(1, BIG)))
    (line,) = capsys.readouterr().err.splitlines()
    assert str(checkpoints.path(2)) in line
    assert reason in line
    assert "set aside as epoch-0002.damaged" in line
    assert names(checkpoints) == ["epoch-0001.ckpt"]
    save(checkpoints, 2)  # in its place, the next time
    assert_is(checkpoints.newest(9), 2)


def test_where_all_are_damaged_there_is_none_and_that_is_said_loudly(
    checkpoints: Checkpoints, capsys: pytest.CaptureFixture[str]
) -> None:
    save(checkpoints, 1, 2)
    for epoch in (1, 2):
        flip(100)(checkpoints.path(epoch))
    assert checkpoints.newest(9) is None
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "NO SOUND CHECKPOINT" in lines[-1]
    assert "starts anew" in lines[-1]
    assert checkpoints.newest(9) is None  # both are set aside: nothing more to say
    assert capsys.readouterr().err == ""


def test_without_any_there_is_none_and_nothing_is_said(
    checkpoints: Checkpoints, capsys: pytest.CaptureFixture[str]
) -> None:
    assert checkpoints.newest(9) is None
    assert capsys.readouterr() == ("", "")


def test_one_that_would_run_code_is_refused_and_runs_none(
    checkpoints: Checkpoints, capsys: pytest.CaptureFixture[str]
) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(checkpoints.folder / "it ran"),)

    save(checkpoints, 1, 2)
    sound = {"fingerprint": checkpoints.fingerprint, **checkpoint._plain(snapshot_of(2))}
    body = torch_bytes({**sound, "extra": Evil()})
    for each in (body, pickle.dumps(Evil())):
        with_body(each)(checkpoints.path(2))
        with pytest.raises(BadInput, match="no plain values"):
            read_checkpoint(checkpoints.path(2), checkpoints.fingerprint)
    assert_is(checkpoints.newest(9), 1)
    assert not (checkpoints.folder / "it ran").exists()
    assert "set aside" in capsys.readouterr().err
    torch.load(io.BytesIO(body), weights_only=False)  # it would have run, read carelessly
    assert (checkpoints.folder / "it ran").exists()


def test_others_of_the_run_are_named_with_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, name in ((4, "tiny-baseline-3"), (5, "tiny-baseline-3"), (6, "tiny-baseline-33")):
        other = Checkpoints(tmp_path, name, {**IDENTITY, "card": {"seed": seed}, "code": {}})
        with other.held():
            save(other, *([1] if seed != 5 else []))
    mine = Checkpoints(tmp_path, "tiny-baseline-3", IDENTITY)
    with mine.held():
        assert mine.newest(9) is None
    (line,) = capsys.readouterr().err.splitlines()  # the second has no checkpoint, the third is another run
    assert line.endswith("is of this run with another lib/ic.py, seed: not used")


# The lock.


@pytest.fixture
def held(processes: Processes, tmp_path: Path) -> Iterator[tuple[int, Checkpoints]]:
    """A folder that a process of its own holds, until it is killed at the latest here."""
    (tmp_path / "workplace").mkdir()
    root = tmp_path / "checkpoints"
    process = processes.start(tmp_path / "workplace", "call_hold", str(root), "tiny-baseline-3", changes=[])
    deadline = time.monotonic() + 60
    while not (tmp_path / "workplace.notes").exists() or not (tmp_path / "workplace.notes").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield process, Checkpoints(root, "tiny-baseline-3", IDENTITY)
    os.kill(process, signal.SIGKILL)  # a zombie until it is waited for: its number is still its own
    assert processes.wait(process, tmp_path / "workplace").status == -signal.SIGKILL


def kill(process: int) -> None:
    """Kill a process, and wait until the kernel has freed what it held."""
    os.kill(process, signal.SIGKILL)
    while Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.001)


def test_a_second_process_is_told_who_holds_the_folder_and_writes_nothing(held: tuple[int, Checkpoints]) -> None:
    process, checkpoints = held
    before = {path: path.read_bytes() for path in checkpoints.folder.iterdir()}
    with pytest.raises(TryAgain, match=rf"tiny-baseline-3 is being trained by process {process} on ") as caught:
        with checkpoints.held():
            raise AssertionError("two hold it")
    assert caught.value.status == 75
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in checkpoints.folder.iterdir()} == before
    assert holder(checkpoints.folder) is not None  # asking did not free it


def test_another_runs_folder_can_be_held_meanwhile(held: tuple[int, Checkpoints]) -> None:
    _, checkpoints = held
    with Checkpoints(checkpoints.folder.parent, "tiny-baseline-4", IDENTITY).held():
        assert holder(checkpoints.folder) is not None


def test_the_kernel_frees_a_killed_processs_lock(held: tuple[int, Checkpoints]) -> None:
    process, checkpoints = held
    assert str(process) in (holder(checkpoints.folder) or "")
    kill(process)
    assert holder(checkpoints.folder) is None
    with checkpoints.held():  # the lock file of the dead is no obstacle
        assert holder(checkpoints.folder) == (checkpoints.folder / ".lock").read_text()
        assert f"process {os.getpid()} on " in (holder(checkpoints.folder) or "")
    assert holder(checkpoints.folder) is None


@pytest.mark.parametrize("content", [b"", b"process 1 on elsewhere", b"\xff\xfe", b"x" * 100_000])
def test_a_lock_file_left_behind_is_no_obstacle_whatever_is_in_it(content: bytes, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "tiny-baseline-3", IDENTITY)
    checkpoints.folder.mkdir()
    (checkpoints.folder / ".lock").write_bytes(content)
    with checkpoints.held():
        assert re.fullmatch(rf"process {os.getpid()} on \S+", (checkpoints.folder / ".lock").read_text())


def test_a_lock_file_deleted_while_it_is_being_taken_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path, "tiny-baseline-3", IDENTITY)
    real, deleted = fcntl.flock, []

    def flock(lock: int, how: int) -> None:
        if not deleted:
            deleted.append(lock)
            (checkpoints.folder / ".lock").unlink()
        real(lock, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with checkpoints.held():
        assert deleted
        monkeypatch.undo()
        assert holder(checkpoints.folder) is not None  # the file that others see is the one that is held


def test_nobody_holds_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert holder(tmp_path / "nowhere") is None
    assert holder(tmp_path) is None
    assert os.listdir(tmp_path) == []  # asking makes nothing


def test_a_holder_that_ends_while_its_name_is_asked_for_is_still_a_somebody(
    held: tuple[int, Checkpoints], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "holder", lambda _: None)
    with pytest.raises(TryAgain, match="by another process"), held[1].held():
        pass


def test_holding_sweeps_what_a_killed_process_left_half_written(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "tiny-baseline-3", IDENTITY)
    with checkpoints.held():
        save(checkpoints, 1)
    (checkpoints.folder / ".epoch-0002.ckpt.123.tmp").write_bytes(b"half")
    with checkpoints.held():
        assert sorted(os.listdir(checkpoints.folder)) == [".lock", "epoch-0001.ckpt", "identity.json"]


def test_a_folder_that_cannot_be_made_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(BadInput, match="checkpoints.*cannot be locked"):
        with Checkpoints(tmp_path / "checkpoints", "tiny-baseline-3", IDENTITY).held():
            pass


def test_the_folder_says_in_plain_text_what_its_fingerprint_is_of(checkpoints: Checkpoints) -> None:
    content = (checkpoints.folder / "identity.json").read_bytes()
    assert files.read_json(checkpoints.folder / "identity.json") == IDENTITY
    assert checkpoints.folder.name == f"tiny-baseline-3-{hashlib.sha256(content).hexdigest()[:16]}"


# The disk.


@pytest.mark.parametrize("free, enough", [(0, False), ((KEPT + 1) * 1000 - 1, False), ((KEPT + 1) * 1000, True)])
def test_room_is_needed_for_those_kept_and_the_one_being_written(
    free: int, enough: bool, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type(shutil.disk_usage("/"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - free, free))
    if enough:
        checkpoints.require_room(1000, epochs=3)
        return
    with pytest.raises(BadInput, match="make room"):
        checkpoints.require_room(1000, epochs=3)


def test_room_that_checkpoints_have_already_is_not_asked_for_again(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(checkpoints, 1, 2)
    size = checkpoints.path(1).stat().st_size
    usage = type(shutil.disk_usage("/"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - size, size))
    checkpoints.require_room(size, epochs=3)
    with pytest.raises(BadInput, match="make room"):
        checkpoints.require_room(size, epochs=1)  # the second is of a longer run, and stays
    checkpoints.path(1).unlink()
    checkpoints.path(1).symlink_to("nowhere")
    with pytest.raises(BadInput, match="make room"):
        checkpoints.require_room(size, epochs=3)


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_a_disk_that_fills_up_costs_no_epoch_that_was_safe(
    share: float, processes: Processes, pristine_stand_in: Path, tmp_path: Path
) -> None:
    card: RunCard = dataclasses.replace(IC_CARD, epochs=3, train_images=16, batch_size=8, test_images=4)
    straight, full = (make_workplace(tmp_path / name, pristine_stand_in, card) for name in ("straight", "full"))
    assert processes.train(straight, card).status == 0
    assert processes.train(full, card, ("signalled_after_epochs", 2, signal.SIGKILL)).status == -signal.SIGKILL
    before = {path.name: path.read_bytes() for path in checkpoints_in(full)}

    limit = int(share * len(before["epoch-0002.ckpt"]))
    ended = processes.train(full, card, ("with_files_of_at_most", limit))
    assert ended.status == 2
    (line,) = ended.error.splitlines()
    assert line.startswith("train: ")
    assert "epoch-0003.ckpt" in line and "File too large" in line and "free some space" in line
    assert {path.name: path.read_bytes() for path in checkpoints_in(full)} == before
    assert not [name for name in files_in(full) if name.endswith(".tmp")]

    assert processes.train(full, card).error == ""
    assert differences(straight, full, card) == []


# Where a run goes on.


@pytest.mark.parametrize(
    "here",
    [
        THERE,
        dataclasses.replace(HERE, threads=2),
        dataclasses.replace(HERE, torch="2.15.0"),
        dataclasses.replace(HERE, instructions="AVX512"),
    ],
    ids=str,
)
def test_a_move_to_other_circumstances_is_noted_and_said(
    here: Circumstances, capsys: pytest.CaptureFixture[str]
) -> None:
    done = snapshot_of(5)
    start = Snapshot.of_start(done, here)
    assert start == dataclasses.replace(done, circumstances=(THERE, HERE, here))
    (line,) = capsys.readouterr().err.splitlines()
    assert all(part in line for part in ("epochs up to 5", str(HERE), str(here), "not bit for bit"))


def test_going_on_in_the_same_circumstances_is_nothing_to_speak_of(capsys: pytest.CaptureFixture[str]) -> None:
    done = snapshot_of(5)
    assert Snapshot.of_start(done, HERE) is done
    start = Snapshot.of_start(None, HERE)
    assert (start.epoch, start.circumstances) == (0, (HERE,))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE])
def test_a_checkpoint_that_cannot_be_read_just_now_is_named_and_stays_where_it_is(
    number: int, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(checkpoints, 1, 2)

    def fail(path: Path) -> bytes:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        with pytest.raises(BadInput, match=rf"epoch-0002\.ckpt cannot be read \({os.strerror(number)}\)"):
            checkpoints.newest(9)
    assert_is(checkpoints.newest(9), 2)  # nothing was set aside


def test_memory_that_runs_out_while_reading_is_no_damage(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(checkpoints, 1)

    def fail(*arguments: Any, **options: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", fail)
        with pytest.raises(MemoryError):
            checkpoints.newest(9)
    assert_is(checkpoints.newest(9), 1)


def test_asking_who_holds_a_folder_does_not_keep_a_run_out_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else has the lock for the instant of asking: the run tries again."""
    folder = tmp_path / "run"
    folder.mkdir()
    asker = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(asker, fcntl.LOCK_SH)
    monkeypatch.setattr(lock.time, "sleep", lambda _: os.close(asker))
    os.close(lock.take(folder, "run"))
