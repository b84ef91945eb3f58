"""Checkpoints: durable, checksummed, one writer, never another run's."""

import contextlib
import dataclasses
import hashlib
import io
import os
import re
import struct
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from lib import lock
from lib.errors import BadInput
from lib.files import canonical_json, read_json, require_room, sync_folder, write_whole
from lib.machine.device import Circumstances
from lib.metrics import EpochRecord

HEADER = struct.Struct(">8s32sQ")  # magic with format version, SHA-256 of the body, its length in bytes
MAGIC = b"ICCKPT\x00\x01"
KEPT = 2  # the newest, and the one before in case the newest is damaged
FILE = re.compile(r"epoch-(\d{4,9})\.ckpt")
IDENTITY = "identity.json"  # what the fingerprint is a hash of, for people and to say why a folder was not used


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """All that a run needs to resume, tensors on the CPU. No generator state: seeds are derived from the card."""

    history: tuple[EpochRecord, ...]
    model: dict[str, torch.Tensor]  # parameters and buffers
    optimizer: dict[str, Any]
    circumstances: tuple[Circumstances, ...]  # in order, if the run moved

    @property
    def epoch(self) -> int:
        """The number of finished epochs."""
        return len(self.history)

    @classmethod
    def of_start(cls, done: "Snapshot | None", here: Circumstances) -> "Snapshot":
        """Where training starts: empty, or what is done; a change of circumstances is recorded and reported."""
        if done is None:
            return cls((), {}, {}, (here,))
        if done.circumstances[-1] == here:
            return done
        _warn(
            f"epochs up to {done.epoch} were trained by {done.circumstances[-1]}, the rest will be by {here}: sound, "
            "but not bit for bit what one of them alone would give; its checkpoints name both"
        )
        return dataclasses.replace(done, circumstances=(*done.circumstances, here))


class Damaged(BadInput):
    """A checkpoint that is corrupt or of another run: to be set aside, unlike one that cannot be read for now."""


class Checkpoints:
    """The checkpoint folder of one run, `<root>/<run>-<fingerprint's first 16 digits>`, locked while held().

    `identity` is everything that decides the run's result (RunCard.identity); its SHA-256 is the fingerprint.
    """

    def __init__(self, root: Path, run: str, identity: Mapping[str, Any]) -> None:
        self.run, self.identity = run, identity
        self.fingerprint = hashlib.sha256(canonical_json(identity)).hexdigest()
        self.folder = root / f"{run}-{self.fingerprint[:16]}"
        self.saving = threading.Lock()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Lock the folder, and delete what a killed process left half-written in it.

        The kernel releases the lock when the process ends, however it ends.
        Raises TryAgain that names the process holding it, and BadInput if the folder cannot be written.
        """
        held = lock.take(self.folder, self.run)
        try:
            for leftover in self.folder.glob(".*.tmp"):
                with contextlib.suppress(OSError):
                    leftover.unlink()
            write_whole(self.folder / IDENTITY, canonical_json(self.identity))
            sync_folder(self.folder.parent)
            yield
        finally:
            with self.saving:  # a thread may be saving, and another process would delete its temporary file
                os.close(held)

    def save(self, snapshot: Snapshot) -> None:
        """Write a checkpoint; once it is on disk, delete all earlier ones but the last.

        Checkpoints past this epoch stay: they belong to a longer run of the same card. Raises BadInput (disk full).
        """
        with self.saving:
            buffer = io.BytesIO()  # torch.save to a path would write the file's name into the file
            torch.save({"fingerprint": self.fingerprint, **_plain(snapshot)}, buffer)
            body = buffer.getvalue()
            header = HEADER.pack(MAGIC, hashlib.sha256(body).digest(), len(body))
            write_whole(self.path(snapshot.epoch), header + body)
            self._delete_those_before(snapshot.epoch)

    def adopt(self, name: str, content: bytes) -> Snapshot:
        """Keep a checkpoint of this run that was made elsewhere, byte for byte, as save() would.

        Raises Damaged if it is corrupt or of another run, and BadInput (disk full).
        """
        snapshot = _snapshot(self.folder / Path(name).name, content, self.fingerprint)
        write_whole(self.path(snapshot.epoch), content)
        self._delete_those_before(snapshot.epoch)
        return snapshot

    def _delete_those_before(self, newest: int) -> None:
        for epoch in self.epochs(newest)[KEPT:]:
            with contextlib.suppress(OSError):  # retried after the next epoch
                os.unlink(self.path(epoch))

    def newest(self, epochs: int) -> Snapshot | None:
        """The last intact checkpoint up to epoch `epochs`, or None.

        Reports damaged ones, which it sets aside, on standard error, and if none is left, this run's other folders.
        """
        found = self.epochs(epochs)
        for epoch in found:
            try:
                return read_checkpoint(self.path(epoch), self.fingerprint)
            except Damaged as error:
                aside = self.path(epoch).with_suffix(".damaged")
                _warn(f"{error}: set aside as {aside.name}")
                with contextlib.suppress(OSError):
                    os.replace(self.path(epoch), aside)
        if found:
            _warn(f"NO SOUND CHECKPOINT is left in {self.folder}: {self.run} starts anew")
        self._warn_of_others()
        return None

    def epochs(self, up_to: int) -> list[int]:
        """The epochs up to `up_to` that have a checkpoint, last first: by number, since clocks jump."""
        found = (FILE.fullmatch(path.name) for path in self.folder.glob("*.ckpt"))
        return sorted((epoch for name in found if name and (epoch := int(name[1])) <= up_to), reverse=True)

    def last(self, up_to: int) -> int:
        """The last epoch up to `up_to` that has a checkpoint, sound or not; 0 if none has."""
        return max(self.epochs(up_to), default=0)

    def path(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch:04}.ckpt"

    def require_room(self, snapshot_bytes: int, epochs: int) -> None:
        """Raise BadInput unless the disk has room for those kept and the one being written, at this size each.

        Existing ones up to `epochs` count as room, as they will be deleted; those of a longer run stay.
        """
        held = 0
        for epoch in self.epochs(up_to=epochs):
            with contextlib.suppress(OSError):  # a dangling link under its name
                held += self.path(epoch).stat().st_size
        require_room(self.folder, (KEPT + 1) * snapshot_bytes - held)

    def _warn_of_others(self) -> None:
        """Name each folder of this run that has checkpoints under another identity, and what differs."""
        here = _flat(self.identity)
        for folder in sorted(self.folder.parent.glob(f"{self.run}-*")):
            if folder != self.folder and any(folder.glob("epoch-*.ckpt")):
                with contextlib.suppress(BadInput, LookupError, TypeError):
                    there = _flat(read_json(folder / IDENTITY))
                    differs = sorted(key for key in {*there, *here} if there.get(key) != here.get(key))
                    _warn(f"{folder} is of this run with another {', '.join(differs)}: not used")


def read_checkpoint(path: Path, fingerprint: str | None = None) -> Snapshot:
    """Read a checkpoint, which must have this fingerprint if one is given.

    torch.load alone detects neither a flipped bit nor a block of zeros: the checksum comes first.
    Raises Damaged, or BadInput if the file cannot be read (permissions, a failing disk): each says why.
    """
    try:
        content = path.read_bytes()
    except (IsADirectoryError, FileNotFoundError) as error:  # a folder or a dangling link under its name
        raise Damaged(f"{path} is damaged ({error.strerror})") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}): fix that, then run the command again") from None
    return _snapshot(path, content, fingerprint)


def _snapshot(path: Path, content: bytes, fingerprint: str | None) -> Snapshot:
    """The snapshot in the content of a checkpoint file. Raises Damaged."""
    try:
        magic, digest, length = HEADER.unpack_from(content)
        body = memoryview(content)[HEADER.size :]
        if magic != MAGIC:
            raise ValueError("not a checkpoint of this format")
        if len(body) != length:
            raise ValueError(f"{len(body):,} bytes where {length:,} were written")
        if hashlib.sha256(body).digest() != digest:
            raise ValueError("its SHA-256 is not the one it was written with")
        saved = _loaded(body)
        if fingerprint is not None and saved["fingerprint"] != fingerprint:
            raise ValueError("of another run")
        snapshot = Snapshot(
            tuple(EpochRecord(**record) for record in saved["history"]),
            saved["model"],
            saved["optimizer"],
            tuple(Circumstances(**each) for each in saved["circumstances"]),
        )
        if path.name != f"epoch-{snapshot.epoch:04}.ckpt":
            raise ValueError(f"of epoch {snapshot.epoch}")
    except MemoryError:
        raise
    except Exception as error:  # damage can make torch.load raise nearly anything
        raise Damaged(f"{path} is damaged ({' '.join(str(error).split())})") from None
    return snapshot


def _loaded(body: memoryview) -> dict[str, Any]:
    """The body's plain values and tensors, read without running its code. Raises ValueError."""
    try:
        return torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception:  # its message is a page long, and recommends disabling the safeguard
        raise ValueError("PyTorch finds no plain values and tensors in it") from None


def _warn(line: str) -> None:
    print(f"train: {line}", file=sys.stderr, flush=True)


def _plain(snapshot: Snapshot) -> dict[str, Any]:
    """A snapshot as dicts, lists, numbers, strings and tensors."""
    return {
        "history": [dataclasses.asdict(record) for record in snapshot.history],
        "model": dict(snapshot.model),
        "optimizer": snapshot.optimizer,
        "circumstances": [dataclasses.asdict(each) for each in snapshot.circumstances],
    }


def _flat(identity: Mapping[str, Any]) -> dict[str, Any]:
    """An identity's values in one mapping: dropout_p, data, lib/ic.py."""
    return {key: identity[key] for key in ("schema", "data")} | {**identity["card"], **identity["code"]}
