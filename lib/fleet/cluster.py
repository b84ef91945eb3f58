"""A Ray cluster as the fleet sees it: slots that take tasks, and the news that tasks send. Only this imports Ray.

Ray does what an engine can: it places tasks (queued ones too, and on nodes that join later), ships code and data
without a shared disk, gives each GPU task its own GPU, and detects what has died.
"""

import contextlib
import logging
import os
import re
import signal
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

for setting, value in {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_NUM_REDIS_GET_RETRIES": "1",  # half a minute, not ten, for a server that is not Ray
}.items():
    os.environ.setdefault(setting, value)

import ray  # noqa: E402  # reads these on import
from ray import exceptions  # noqa: E402

from lib.errors import BadInput, Stopped, TryAgain  # noqa: E402
from lib.fleet.worker import News, Order, Worker  # noqa: E402

LOCAL = "local"
AUTO = "auto"
ADDRESS = re.compile(r"(ray://)?(?P<host>\[[0-9a-fA-F:]+\]|[\w.-]+):(?P<port>\d{1,5})")


class Lost:
    """A task's process or node has died, or the task raised an error."""

    def __init__(self, error: Exception) -> None:
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        self.reason = lines[-1 if isinstance(error, exceptions.RayTaskError) else 0].strip()


class RemoteWorker:
    """A Worker in a Ray process. The data set's reference is in a list, so that Ray does not fetch it early."""

    def __init__(self, orders: Sequence[Order], data: Mapping[str, str], contents: list[Any]) -> None:
        self.worker = Worker(orders, data, lambda: ray.get(contents[0]))

    def begin(self) -> News:
        devices = "".join(f" GPU {each}" for each in ray.get_gpu_ids())
        return self.worker.begin(devices, ray.get_runtime_context().get_node_id())

    def train(self, checkpoints: Mapping[str, tuple[str, bytes]]) -> News:
        return self.worker.train(checkpoints)

    def news(self) -> News:
        return self.worker.news()


class Cluster:
    """A connection to the cluster at `address`, or to one started here that ends with it.

    `code` is a folder shipped to every node, `data` the data set's files by path, `digests` their SHA-256s.
    """

    def __init__(
        self, address: str, slots: int, code: Path, data: Mapping[str, bytes], digests: Mapping[str, str]
    ) -> None:
        connect(address, slots, code)
        self.digests = digests
        with reached():
            self.data = [ray.put(dict(data))]
        self.pending: dict[Any, Any] = {}  # awaited results, and the task each is from

    @property
    def gpus(self) -> int:
        with reached():
            return int(ray.cluster_resources().get("GPU", 0))

    def start(self, orders: Sequence[Order], gpu: bool, avoid: Collection[str]) -> Any:
        """A task, which begins once a GPU, or a CPU, is free: if possible, not on the nodes to avoid."""
        options: dict[str, Any] = {"num_cpus": 0, "num_gpus": 1} if gpu else {"num_cpus": 1, "num_gpus": 0}
        actor: Any = ray.remote(RemoteWorker)
        with reached():
            if avoid and self._nodes("GPU" if gpu else "CPU") - set(avoid):
                options["label_selector"] = {"ray.io/node-id": f"!in({','.join(sorted(avoid))})"}
            task = actor.options(**options).remote(orders, self.digests, self.data)
            self.pending[task.begin.remote()] = task
        return task

    def _nodes(self, kind: str) -> set[str]:
        """The live nodes that have a CPU or a GPU for tasks, by Ray's ids."""
        return {node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get(kind)}

    def train(self, task: Any, checkpoints: Mapping[str, tuple[str, bytes]]) -> None:
        """Let a task that has begun train, from these checkpoints."""
        with reached():
            self.pending[task.train.remote(checkpoints)] = task

    def more(self, task: Any) -> None:
        """Ask a task for its next news."""
        with reached():
            self.pending[task.news.remote()] = task

    def news(self, seconds: float) -> Iterator[tuple[Any, News | Lost]]:
        """News that arrives within `seconds`, with the task it is from. Raises TryAgain if the cluster is lost."""
        if not self.pending:
            return
        with reached():
            ready, _ = ray.wait(list(self.pending), num_returns=1, timeout=seconds)
        for reference in ready:
            task = self.pending.pop(reference)
            with reached():
                told = self._told(reference)
            yield task, told

    def _told(self, reference: Any) -> News | Lost:
        try:
            return ray.get(reference)
        except exceptions.RayError as error:
            return Lost(error)

    def end(self, task: Any) -> None:
        """Kill a task, and free its slot."""
        for reference in [each for each, of in self.pending.items() if of is task]:
            del self.pending[reference]
        with contextlib.suppress(exceptions.RayError, OSError):
            ray.kill(task)

    def close(self) -> None:
        for task in list(self.pending.values()):
            self.end(task)
        ray.shutdown()


@contextlib.contextmanager
def reached() -> Iterator[None]:
    """Raise TryAgain if the cluster can no longer be reached."""
    try:
        yield
    except (OSError, exceptions.RayError) as error:
        raise TryAgain(
            f"the connection to the cluster is lost ({' '.join(str(error).split())[:200]}): its head has died, or the "
            "network; fix that, then the same command resumes from the last checkpoints"
        ) from None


def connect(address: str, slots: int, code: Path) -> None:
    """Connect to a cluster, or start one here with `slots` CPU slots. Raises BadInput in one line."""
    options: dict[str, Any] = {
        "runtime_env": {"working_dir": str(code)},
        "log_to_driver": False,
        "logging_level": logging.ERROR,
    }
    if address == LOCAL:
        options |= {"num_cpus": slots, "include_dashboard": False}
    elif address != AUTO:
        require_answer(address)
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, **options)
    except SystemExit:  # Ray handles SIGTERM itself
        raise Stopped("stopped by SIGTERM while the cluster was being reached", signal.SIGTERM) from None
    except Exception as error:  # of many classes; its message says which
        raise BadInput(f"--address {address}: {said_in_a_line(str(error), address)}") from None
    finally:
        signal.signal(signal.SIGTERM, before)


def said_in_a_line(text: str, address: str) -> str:
    """Why Ray cannot connect to an address, and how to fix it."""
    text = " ".join(text.split())[:400]
    if "AF_UNIX" in text:
        return f"the folder for Ray's sockets has too long a name ({text}): set RAY_TMPDIR to a short one, as /tmp"
    if "No node info" in text:
        cure = "make it one by `ray start --address=...` here, or give ray://host:10001"
        return f"this machine is no node of that cluster ({text}): {cure}"
    if "Version mismatch" in text:
        cure = "install here what the cluster has, or there what requirements-fleet.txt names"
        return f"Ray and Python must be the same there and here ({text}): {cure}"
    if "Authentication" in text:
        return "it wants a token: RAY_AUTH_MODE=token, and its head's ~/.ray/auth_token here at the same place"
    if address == LOCAL:
        return f"Ray could not start here ({text}): `ray start --head` may say more"
    cure = "start one by `ray start --head`, or leave --address away to use this machine alone"
    return f"no Ray cluster can be reached ({text}): {cure}"


def require_answer(address: str) -> None:
    """Raise BadInput unless something listens at host:port: Ray itself would retry for minutes."""
    parts = ADDRESS.fullmatch(address)
    if parts is None or int(parts["port"]) > 65535:
        raise BadInput(f"--address {address}: expected host:port, ray://host:port or auto")
    try:
        socket.create_connection((parts["host"].strip("[]"), int(parts["port"])), timeout=5).close()
    except (OSError, UnicodeError) as error:  # the latter if the host name is invalid
        cure = "is the head node up (`ray start --head` there), and is the port open (6379, for ray:// 10001)?"
        raise BadInput(
            f"--address {address}: nothing answers ({getattr(error, 'strerror', None) or error}): {cure}"
        ) from None
