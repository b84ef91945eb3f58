"""A real Ray cluster of several nodes on this machine: processes of their own, each node with a folder as its disk."""

import os
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


class RayCluster:
    """A head without a slot, and nodes that can be added and killed; close() leaves nothing behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        port = self.address.split(":")[1]
        self._start("head", "--head", "--port", port, "--num-cpus", "0", "--num-gpus", "0", "--include-dashboard=false")

    def add(self, name: str, cpus: int = 1, gpus: int = 0, **environment: str) -> None:
        """A node whose disk is the folder of that name. Waits until it is there."""
        slots = ("--num-cpus", str(cpus), "--num-gpus", str(gpus))
        self._start(name, "--address", self.address, *slots, **environment)

    def _start(self, name: str, *arguments: str, **environment: str) -> None:
        (self.folder / name).mkdir(exist_ok=True)
        log = self.folder / f"{name}.log"
        command = [str(Path(sys.executable).parent / "ray"), "start", "--block", *arguments]
        command += ["--node-ip-address", "127.0.0.1", "--object-store-memory", "100000000"]
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

    def kill(self, name: str) -> None:
        """The node loses its power: every process of it gets SIGKILL."""
        node = self.nodes.pop(name)
        try:
            processes = psutil.Process(node.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            processes = []
        os.killpg(node.pid, signal.SIGKILL)
        for process in processes:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        node.wait()

    def close(self) -> None:
        for name in list(self.nodes):
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
