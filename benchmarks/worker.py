"""A contender's process: started once, it trains a block of steps whenever asked to through a pipe."""

import collections
import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import resource
import sys
import time
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

import torch

from benchmarks.contenders import BATCH_SIZE, DROPOUT_P, Contender, Network
from benchmarks.data import Source
from benchmarks.engine import Engine
from benchmarks.reference import PlainLoop, TunedLoop
from benchmarks.stopwatch import wait_for_device
from lib import batches, cifar10
from lib.errors import StageError, errors_exit
from lib.gpu import captured
from lib.machine.device import make_deterministic, pick_device, threads_for
from lib.machine.memory import keep_freed_memory
from lib.resnet import ResNet
from lib.turns import in_turns


@dataclasses.dataclass(frozen=True)
class Block:
    """What a process did when asked: images, seconds and, if watched, the parts of each step."""

    images: int
    seconds: float
    parts: dict[str, list[float]]


class Trainer:
    """The runs of one process."""

    def __init__(self, contender: Contender, network: Network, source: Source, device: torch.device) -> None:
        data = cifar10.load(source.folder, "auto", source.train_images, source.test_images)
        models = [self._model(network, seed) for seed in range(contender.runs)]
        self.loops: list[Engine | PlainLoop]
        self.is_engine = contender.loop == "engine"
        if self.is_engine:
            keep_freed_memory()
            make_deterministic()
            served = batches.served(data, BATCH_SIZE, device)
            self.loops = [Engine(model, contender.precision, served, device) for model in models]
        elif contender.loop == "plain":
            self.loops = [PlainLoop(model, source.folder, data, device) for model in models]
        else:
            self.loops = [TunedLoop(model, source.folder, data, device, contender.precision) for model in models]
        self.steps = [loop.steps() for loop in self.loops]

    @staticmethod
    def _model(network: Network, seed: int) -> ResNet:
        torch.manual_seed(seed)
        return ResNet(network.block, network.blocks_per_stage, network.ordering, dropout_p=DROPOUT_P)

    def train(self, steps: int, watched: bool) -> Block:
        """Train each run for `steps`: the engine's in turns, as in a study; another loop on the stream a script has."""
        for loop in self.loops:
            loop.watch.on = watched
        before, start = self._images(), time.perf_counter()
        some = {str(index): itertools.islice(each, steps) for index, each in enumerate(self.steps)}
        if self.is_engine:
            in_turns(some)
        else:  # with a stream per block, as in_turns gives it, PyTorch may synchronize at every parameter
            for each in some.values():
                collections.deque(each, maxlen=0)
        wait_for_device()
        seconds = time.perf_counter() - start
        parts: dict[str, list[float]] = collections.defaultdict(list)
        for loop in self.loops:
            for part, times in loop.watch.taken().items():
                parts[part] += times
        return Block(self._images() - before, seconds, dict(parts))

    def _images(self) -> int:
        return sum(loop.images for loop in self.loops)

    def evaluate(self, batches: int) -> Block:
        """Evaluate each run on that many test batches, one run after the other."""
        for loop in self.loops:
            loop.watch.on = False
        start = time.perf_counter()
        images = sum(loop.evaluate(batches) for loop in self.loops)
        wait_for_device()
        return Block(images, time.perf_counter() - start, {})

    def peak_bytes(self) -> int:
        """Peak memory: on a GPU what PyTorch reserved, including captured graphs' memory, else the whole process's."""
        if torch.cuda.is_available():
            return torch.cuda.max_memory_reserved()
        # On Linux a process inherits the peak of the one that started it; here that one holds no data: never higher.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    def threads(self) -> int:
        return torch.get_num_threads()


def serve(connection: Connection, contender: Contender, network: Network, source: Source, wanted: str) -> None:
    """Answer requests, each (method of Trainer, arguments), until the other end closes."""
    torch.set_num_threads(contender.threads or threads_for(None))
    os.environ[captured.SWITCH] = str(int(contender.captured))
    with errors_exit(f"benchmarks: {contender.name}"):
        trainer = Trainer(contender, network, source, pick_device(wanted))
        while True:
            try:
                method, arguments = connection.recv()
            except EOFError:
                return
            connection.send(getattr(trainer, method)(*arguments))


class Team:
    """A contender's processes, which do the same thing at the same time. They end with `stack`."""

    def __init__(
        self,
        contender: Contender,
        network: Network,
        source: Source,
        device: torch.device,
        stack: contextlib.ExitStack,
    ) -> None:
        self.contender = contender
        spawn = multiprocessing.get_context("spawn")
        self.connections: list[Connection] = []
        self.processes: list[SpawnProcess] = []
        for _ in range(contender.processes):
            ours, theirs = spawn.Pipe()
            arguments = (theirs, contender, network, source, device.type)
            # Not a daemon: it could have no children, such as a DataLoader's workers. It ends as its connection closes.
            process = spawn.Process(target=serve, args=arguments)
            process.start()
            self.processes.append(process)
            theirs.close()
            self.connections.append(ours)
            stack.callback(process.join)
            stack.callback(ours.close)  # called first: a process stops when its pipe closes

    def ask(self, method: str, *arguments: Any) -> list[Any]:
        """Each process's answer. Raises StageError if one has ended."""
        try:
            for connection in self.connections:
                connection.send((method, arguments))
            return [connection.recv() for connection in self.connections]
        except (EOFError, OSError) as error:
            for process in self.processes:  # those that still train would disturb the others' race
                process.terminate()
            raise StageError(f"a process of {self.contender.name} has ended; what it said is above") from error
