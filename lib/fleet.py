"""The fleet's driver: what becomes of what tasks send, and what is tried again."""

import math
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from lib.checkpoint import Damaged
from lib.errors import BadInput, StageError, TryAgain
from lib.fleet_plan import Job, Member, jobs_for
from lib.fleet_worker import Began, Came, Ended, News, Order

DEATHS = 3  # of a run's workers, one after the other without a new epoch in between: then it counts as failed
IDLE = 60  # seconds
TRIED_AGAIN = {TryAgain.status, 128 + signal.SIGINT, 128 + signal.SIGTERM}  # exit statuses that blame no run


class Engine(Protocol):
    """What the driver needs of a cluster (lib/cluster.py)."""

    @property
    def gpus(self) -> int: ...
    def start(self, orders: Sequence[Order], gpu: bool) -> Any: ...
    def train(self, task: Any, checkpoints: Mapping[str, tuple[str, bytes]]) -> None: ...
    def more(self, task: Any) -> None: ...
    def end(self, task: Any) -> None: ...
    def news(self, seconds: float) -> Iterable[tuple[Any, Any]]: ...


class Fleet:
    """Trains members on an engine, and tells a display what happens. `versions` are those of this process."""

    def __init__(
        self, members: Sequence[Member], engine: Engine, versions: Mapping[str, str], say: Callable[[str], None]
    ):
        self.members, self.engine, self.versions, self.say = members, engine, versions, say
        self.jobs: dict[Any, Job] = {}  # by the engine's task
        self.idle_since = time.monotonic()

    def train(self, check: Callable[[], None]) -> None:
        """Go on until every member is done or has failed. `check` is called often, and may raise to stop all."""
        for job in jobs_for(self.members, self.engine.gpus):
            self._start(job)
        while self.jobs:
            check()
            self._say_if_nothing_begins()
            for task, news in self.engine.news(seconds=0.5):
                self._handle(task, self.jobs[task], news)

    def _say_if_nothing_begins(self) -> None:
        """Say once that tasks wait and none is under way, when that has been so for a while."""
        if any(member.node for job in self.jobs.values() for member in job.members):
            self.idle_since = time.monotonic()
        elif time.monotonic() - self.idle_since > IDLE:
            self.idle_since = math.inf
            self.say("nothing is under way: no node has a free core or GPU; waiting for one (`ray status` shows why)")

    def _start(self, job: Job) -> None:
        for member in job.members:
            member.node = ""
        self.jobs[self.engine.start([member.order() for member in job.members], job.gpu)] = job

    def _handle(self, task: Any, job: Job, news: News | Any) -> None:
        if isinstance(news, Began):
            self._require_same_versions(news)
            for member in job.members:
                member.node = news.node
            newest = {member.name: member.newest() for member in job.members}
            self.engine.train(task, {name: each for name, each in newest.items() if each})
        elif isinstance(news, Came):
            try:
                self._came(job, news)
            except Damaged as error:
                self._lost(task, job, str(error))
            else:
                self.engine.more(task)
        elif isinstance(news, Ended) and news.status >= 0 and news.status not in TRIED_AGAIN:
            self._ended(task, job, news)
        else:
            self._lost(task, job, last_line(news.log) if isinstance(news, Ended) else news.reason)

    def _came(self, job: Job, news: Came) -> None:
        (member,) = (each for each in job.members if each.name == news.run)
        device = member.keep(news)
        place = f"on {member.node}"
        if job.gpu and device == "cpu":
            place += ", whose GPU PyTorch does not see: on its CPU"
        self.say(
            f"{member.name}  epoch {member.epoch}/{member.card.epochs}  test accuracy {member.accuracy:7.2%}  {place}"
        )

    def _ended(self, task: Any, job: Job, news: Ended) -> None:
        """A training has said itself that it is through: those of its runs that are not done have failed."""
        self._close(task)
        for member in job.left:
            own = fault_of(news.log, member.name)
            if len(job.members) > 1 and own is None:  # another one's fault has ended it
                self._start(Job((member,), job.gpu))
            else:
                self._fail(member, own or last_line(news.log), news.status)

    def _lost(self, task: Any, job: Job, reason: str) -> None:
        """Something else has ended a training: what is left goes on from its checkpoints, if need be elsewhere."""
        self._close(task)
        for member in job.left:
            member.deaths += 1
            if member.deaths == DEATHS:
                self._fail(member, f"its worker died {DEATHS} times without an epoch in between ({reason})", 75)
        if job.left:
            names = ", ".join(member.name for member in job.left)
            self.say(f"{names}  lost {job.left[0].node or 'its worker'} ({reason[:200]}): goes on elsewhere")
            self._start(Job(tuple(job.left), job.gpu))

    def _close(self, task: Any) -> None:
        del self.jobs[task]
        self.engine.end(task)

    def _fail(self, member: Member, fault: str, status: int) -> None:
        member.fault = StageError(fault)
        member.fault.status = status or 1
        self.say(f"{member.name}  FAILED: {member.fault}")

    def _require_same_versions(self, began: Began) -> None:
        for what, here in self.versions.items():
            if (there := began.versions.get(what)) != here:
                raise BadInput(
                    f"{began.node} has {what} {there}, here is {here}: results would differ. Install there what "
                    f"requirements-fleet.txt names, or here what the cluster has"
                )


def fault_of(log: str, run: str) -> str | None:
    """What a training of several runs said of this one, if it failed (lib/turns.py)."""
    mark = f"train: {run}: "
    return next((line.removeprefix(mark) for line in log.splitlines() if line.startswith(mark)), None)


def last_line(log: str) -> str:
    lines = [line for line in log.splitlines() if line.strip()] or ["it said nothing"]
    return lines[-1].removeprefix("train: ")
