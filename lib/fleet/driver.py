"""The fleet's driver: handles what tasks send, and decides what to retry."""

import math
import signal
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from lib.checkpoint import Damaged
from lib.errors import BadInput, StageError, TryAgain, ending_of
from lib.fleet.members import Job, Member, jobs_for
from lib.fleet.worker import Began, Came, Ended, News, Order

DEATHS = 3  # of a run's workers in a row, without a new epoch in between: then the run counts as failed
PAUSE = 5  # seconds before a retry, times the deaths so far: Ray takes a while to notice that a node is gone
IDLE = 60  # seconds
TRIED_AGAIN = {TryAgain.status, 128 + signal.SIGINT, 128 + signal.SIGTERM}  # exit statuses that blame no run


class Engine(Protocol):
    """What the driver needs from a cluster (lib/fleet/cluster.py)."""

    @property
    def gpus(self) -> int: ...
    def start(self, orders: Sequence[Order], gpu: bool, avoid: Collection[str]) -> Any: ...
    def train(self, task: Any, checkpoints: Mapping[str, tuple[str, bytes]]) -> None: ...
    def more(self, task: Any) -> None: ...
    def end(self, task: Any) -> None: ...
    def news(self, seconds: float) -> Iterable[tuple[Any, Any]]: ...


class Display(Protocol):
    """Shows a user what happens (lib/fleet/table.py)."""

    def epoch(self, line: str) -> None: ...
    def say(self, line: str) -> None: ...


class Fleet:
    """Trains members on an engine, and tells a display what happens. `versions` are this process's."""

    def __init__(self, members: Sequence[Member], engine: Engine, versions: Mapping[str, str], display: Display):
        self.members, self.engine, self.versions, self.display = members, engine, versions, display
        self.jobs: dict[Any, Job] = {}  # by the engine's task
        self.later: list[tuple[float, Job]] = []  # retries, and when each is due
        self.idle_since = time.monotonic()

    def train(self, check: Callable[[], None]) -> None:
        """Train until every member is done or has failed. `check` is called often, and may raise to stop everything."""
        for job in jobs_for(self.members, self.engine.gpus):
            self._start(job)
        while self.jobs or self.later:
            check()
            self._start_what_is_due()
            self._say_if_nothing_begins()
            for task, news in self.engine.news(seconds=0.5) if self.jobs else ():
                self._handle(task, self.jobs[task], news)

    def _say_if_nothing_begins(self) -> None:
        """When tasks have waited for IDLE seconds with none under way, say so once."""
        if any(member.node for job in self.jobs.values() for member in job.members):
            self.idle_since = time.monotonic()
        elif time.monotonic() - self.idle_since > IDLE:
            self.idle_since = math.inf
            why = "no node has a free core or GPU; waiting for one (`ray status` shows why)"
            self.display.say(f"nothing is under way: {why}")

    def _start_what_is_due(self) -> None:
        due = [job for at, job in self.later if at <= time.monotonic()]
        self.later = [(at, job) for at, job in self.later if at > time.monotonic()]
        for job in due:
            self._start(job)
        if not self.jobs:
            time.sleep(0.1)

    def _again(self, job: Job) -> None:
        """Schedule a job's retry, later with each death."""
        for member in job.members:
            member.node = ""
        self.later.append((time.monotonic() + PAUSE * max(member.deaths for member in job.members), job))

    def _start(self, job: Job) -> None:
        avoid = set[str]().union(*(member.failed_on for member in job.members))
        self.jobs[self.engine.start([member.order() for member in job.members], job.gpu, avoid)] = job

    def _handle(self, task: Any, job: Job, news: News | Any) -> None:
        if isinstance(news, Began):
            self._require_same_versions(news)
            for member in job.members:
                member.node, member.node_id, member.gpu_unseen = news.node, news.node_id, False
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
            self._lost(task, job, reason_of(news) if isinstance(news, Ended) else news.reason)

    def _came(self, job: Job, news: Came) -> None:
        (member,) = (each for each in job.members if each.name == news.run)
        device = member.keep(news)
        if job.gpu and device == "cpu" and not member.gpu_unseen:
            member.gpu_unseen = True
            self.display.say(f"{member.name}  on {member.place}")
        epoch, accuracy = f"{member.epoch}/{member.card.epochs}", f"{member.accuracy:7.2%}"
        self.display.epoch(f"{member.name}  epoch {epoch}  test accuracy {accuracy}  on {member.place}")

    def _ended(self, task: Any, job: Job, news: Ended) -> None:
        """A training process has exited by itself: those of its runs that are not done have failed.

        Each is retried once, in its own task and on another node: the cause may be another run of the task, or a node
        whose disk or memory is full. Such a node is free again at once, and would fail all waiting runs.
        """
        self._close(task)
        for member in job.left:
            fault = fault_of(news.log, member.name) or last_line(news.log)
            member.failed_on.add(member.node_id)
            if member.tried_alone:
                self._fail(member, fault, news.status)
            else:
                member.tried_alone = True
                self.display.say(f"{member.name}  {fault[:200]} ({member.place}): tried once more, alone")
                self._again(Job((member,), job.gpu))

    def _lost(self, task: Any, job: Job, reason: str) -> None:
        """Something else has ended a training process: what is left resumes from its checkpoints on a free slot.

        After a second death the runs are retried separately: one of them may be what kills them all.
        """
        self._close(task)
        for member in job.left:
            member.deaths += 1
            if member.node and member.deaths > 1:  # the first may be anything: a free slot is worth more than suspicion
                member.failed_on.add(member.node_id)
            if member.deaths == DEATHS:
                self._fail(member, f"its worker died {DEATHS} times without an epoch in between ({reason})", 75)
        if job.left:
            names = ", ".join(member.name for member in job.left)
            place = job.left[0].place or "its worker"
            self.display.say(f"{names}  lost {place} ({reason[:200]}): goes on when a slot is free")
            together = max(member.deaths for member in job.left) < 2
            for some in [tuple(job.left)] if together else [(member,) for member in job.left]:
                self._again(Job(some, job.gpu))

    def _close(self, task: Any) -> None:
        del self.jobs[task]
        self.engine.end(task)

    def _fail(self, member: Member, fault: str, status: int) -> None:
        member.fault = StageError(fault, status or 1)
        self.display.say(f"{member.name}  FAILED: {member.fault}")

    def _require_same_versions(self, began: Began) -> None:
        for what, here in self.versions.items():
            if (there := began.versions.get(what)) != here:
                raise BadInput(
                    f"{began.node} has {what} {there}, here is {here}: results would differ. Install there what "
                    f"requirements-fleet.txt names, or here what the cluster has"
                )


def reason_of(ended: Ended) -> str:
    return ending_of(ended.status) if ended.status < 0 else last_line(ended.log)


def fault_of(log: str, run: str) -> str | None:
    """What a training process of several runs said of this one, if it failed (lib/turns.py)."""
    mark = f"train: {run}: "
    return next((line.removeprefix(mark) for line in log.splitlines() if line.startswith(mark)), None)


def last_line(log: str) -> str:
    lines = [line for line in log.splitlines() if line.strip()] or ["it said nothing"]
    return lines[-1].removeprefix("train: ")
