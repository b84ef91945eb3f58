"""The runs of a fleet, each with its state here, and which of them share a task."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence

from lib.card import RunCard
from lib.checkpoint import Checkpoints
from lib.errors import StageError, TryAgain
from lib.fleet.worker import Came, Order
from lib.runs import Run
from lib.turns import AT_ONCE

STATUSES = ("at work", "failed", "waiting", "done")  # most important to the user first


class Member(Run):
    """A run of the fleet: how far it is, where, and what went wrong. `card_file` is sent to nodes."""

    def __init__(self, card: RunCard, checkpoints: Checkpoints, card_file: bytes) -> None:
        super().__init__(card, checkpoints)
        self.card_file = card_file
        self.node = ""  # where it is being trained
        self.node_id = ""  # the engine's id for that
        self.gpu_unseen = False  # it has a GPU there, which PyTorch does not see
        self.accuracy: float | None = None
        self.fault: StageError | None = None
        self.deaths = 0  # of its workers, since its last epoch
        self.tried_alone = False  # after it, or another run of its task, failed
        self.failed_on: set[str] = set()  # nodes that may be to blame, by the engine's ids

    @property
    def name(self) -> str:
        return self.card.name

    @property
    def over(self) -> bool:
        return self.finished or self.fault is not None

    @property
    def status(self) -> str:
        """One of STATUSES."""
        if self.over:
            return "failed" if self.fault else "done"
        return "at work" if self.node else "waiting"

    @property
    def place(self) -> str:
        """Where it is being trained, for users."""
        return self.node + ", whose GPU PyTorch does not see: on its CPU" * self.gpu_unseen

    def order(self) -> Order:
        return Order(self.name, self.card_file, self.checkpoints.folder.name, self.card.epochs)

    def newest(self) -> tuple[str, bytes] | None:
        """Its newest intact checkpoint here, as file name and content."""
        if snapshot := self.checkpoints.newest(self.card.epochs):
            self.accuracy = snapshot.history[-1].test_accuracy
            path = self.checkpoints.path(snapshot.epoch)
            return path.name, path.read_bytes()
        return None

    def keep(self, came: Came) -> str:
        """Verify a received checkpoint and store it, byte for byte, as training does; returns its last device.

        Raises Damaged, and BadInput if it cannot be written.
        """
        snapshot = self.checkpoints.adopt(came.file, came.content)
        self.look()
        self.accuracy, self.deaths = snapshot.history[-1].test_accuracy, 0
        return snapshot.circumstances[-1].device


@contextlib.contextmanager
def held(members: Sequence[Member]) -> Iterator[None]:
    """Lock the checkpoint folders of all members, so that nothing else trains them meanwhile.

    A member that another process holds fails, with status 75; the others go on. Damaged checkpoints are set aside now:
    otherwise the `dvc repro` that should collect a run that looked finished would train it.
    """
    with contextlib.ExitStack() as stack:
        for member in members:
            try:
                stack.enter_context(member.checkpoints.held())
            except TryAgain as error:
                member.fault = error
            else:
                member.newest()
                member.look()  # another process may have trained it until now
        yield


@dataclasses.dataclass(frozen=True)
class Job:
    """Runs that one process trains, side by side if there are several."""

    members: tuple[Member, ...]
    gpu: bool

    @property
    def left(self) -> list[Member]:
        return [member for member in self.members if not member.over]


def jobs_for(members: Sequence[Member], gpus: int) -> list[Job]:
    """The work as jobs, longest runs first, so that none is left to run alone at the end.

    A CPU job is one run. A GPU, which one run cannot fill, gets its share of all, at most AT_ONCE per job.
    """
    longest_first = sorted((each for each in members if not each.over), key=lambda each: -each.work_left)
    on_gpu = [each for each in longest_first if gpus and each.card.device != "cpu"]
    count = min(len(on_gpu), gpus * math.ceil(len(on_gpu) / (gpus * AT_ONCE))) if on_gpu else 0
    shares: list[list[Member]] = [[] for _ in range(count)]
    for member in on_gpu:
        roomy = (share for share in shares if len(share) < AT_ONCE)
        min(roomy, key=lambda share: sum(each.work_left for each in share)).append(member)
    alone = [Job((each,), gpu=False) for each in longest_first if each not in on_gpu]
    return [Job(tuple(share), gpu=True) for share in shares] + alone
