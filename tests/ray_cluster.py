"""A real Ray cluster of several nodes on this machine: processes of their own, each node with a folder as its disk.

Where this machine lets us (root, with `ip`), each node also has a network namespace, and so an address of its own.
"""

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

PATIENCE = 90
# Of this machine's user: a test must neither need a token nor leave one in the home folder.
SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "CUDA_VISIBLE_DEVICES": ""}


class Network:
    """Network namespaces joined by a bridge in the first one's: nothing outside of them can be reached or disturbed."""

    def __init__(self) -> None:
        self.spaces: dict[str, str] = {}  # of each node
        self.count = itertools.count(1)

    @staticmethod
    def possible() -> bool:
        space = f"ic-{os.getpid()}-try"
        if os.geteuid() != 0 or shutil.which("ip") is None or _ip("netns", "add", space):
            return False
        return _ip("netns", "del", space) == 0

    def join(self, node: str) -> str:
        """The address of a node that was not in the network yet."""
        number = next(self.count)
        self.spaces[node] = space = f"ic-{os.getpid()}-{number}"
        address = f"10.77.0.{number}"
        _ip("netns", "add", space)
        if number == 1:
            _ip("-n", space, "link", "add", "wire", "type", "bridge")
        else:
            hub = next(iter(self.spaces.values()))
            _ip("link", "add", "wire", "netns", space, "type", "veth", "peer", "name", f"to{number}", "netns", hub)
            _ip("-n", hub, "link", "set", f"to{number}", "master", "wire", "up")
        _ip("-n", space, "addr", "add", f"{address}/24", "dev", "wire")
        _ip("-n", space, "link", "set", "lo", "up")
        _ip("-n", space, "link", "set", "wire", "up")
        return address

    def inside(self, node: str) -> list[str]:
        """What a command begins with that is to run on a node."""
        return ["ip", "netns", "exec", self.spaces[node]]

    def leave(self, node: str) -> None:
        _ip("netns", "del", self.spaces.pop(node))


def _ip(*arguments: str) -> int:
    return subprocess.run(["ip", *arguments], capture_output=True).returncode


class RayCluster:
    """A head without a slot, and nodes that can be added and killed; close() leaves nothing behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        self.network = Network() if Network.possible() else None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        head = ("--head", "--port", port, "--num-cpus", "0", "--num-gpus", "0", "--include-dashboard=false")
        self.address = f"{self._start('head', *head)}:{port}"

    @property
    def inside(self) -> list[str]:
        """What a command begins with that is to run on the head."""
        return self.network.inside("head") if self.network else []

    def add(self, name: str, cpus: int = 1, gpus: int = 0, **environment: str) -> None:
        """A node whose disk is the folder of that name. Waits until it is there."""
        slots = ("--num-cpus", str(cpus), "--num-gpus", str(gpus))
        self._start(name, "--address", self.address, *slots, **environment)

    def _start(self, name: str, *arguments: str, **environment: str) -> str:
        (self.folder / name).mkdir(exist_ok=True)
        log = self.folder / f"{name}.log"
        address = self.network.join(name) if self.network else "127.0.0.1"
        command = self.network.inside(name) if self.network else []
        command += [str(Path(sys.executable).parent / "ray"), "start", "--block", *arguments]
        command += ["--node-ip-address", address, "--object-store-memory", "100000000"]
        own = {"TMPDIR": str(self.folder / name), "RAY_TMPDIR": str(self.folder / "ray")}
        with log.open("wb") as file:
            self.nodes[name] = subprocess.Popen(
                command,
                env={**os.environ, **SETTINGS, **own, **environment},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE
        while "Ray runtime started" not in log.read_text():
            assert self.nodes[name].poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.1)
        return address

    def kill(self, name: str) -> None:
        """The node loses its power: every process of it gets SIGKILL."""
        node = self.nodes.pop(name)
        try:
            processes = psutil.Process(node.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            processes = []
        with contextlib.suppress(ProcessLookupError):
            os.killpg(node.pid, signal.SIGKILL)
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        node.wait()
        if self.network:
            self.network.leave(name)

    def close(self) -> None:
        for name in reversed(list(self.nodes)):  # the head, whose namespace has the bridge, is the last
            self.kill(name)

    def processes(self) -> list[psutil.Process]:
        """Whatever of it lives: Ray's own processes, and those that train on its nodes."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and str(self.folder) in process.environ().get("TMPDIR", ""):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def trainers(self, name: str = "") -> list[psutil.Process]:
        """The trainings on a node, or on any."""
        found = []
        for process in self.processes():
            try:
                at = process.environ()["TMPDIR"]
                if "stages.train" in process.cmdline() and at in (str(self.folder / name), *[at] * (not name)):
                    found.append(process)
            except (psutil.Error, KeyError):
                continue
        return found
