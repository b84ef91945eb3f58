"""The contenders, and the networks they train."""

import dataclasses

import torch

from lib.card import depth
from lib.machine.device import convolves_in_bfloat16
from lib.runs import on_cores
from lib.words import counted

BATCH_SIZE = 64
DROPOUT_P = 0.05
RUNS_ON_A_GPU = (1, 2, 4, 8)  # side by side in one process


@dataclasses.dataclass(frozen=True)
class Network:
    """One of lib.resnet's networks, in one ordering."""

    block: str
    blocks_per_stage: int
    ordering: str

    @property
    def name(self) -> str:
        family = "resnet" if self.block == "basic" else "resnetb"
        return f"{family}{depth(self.block, self.blocks_per_stage)}"


SIZES = {  # the study's, as in params.yaml
    "resnet110": ("basic", 18),
    "resnet164": ("basic", 27),
    "resnetb110": ("bottleneck", 12),
    "resnetb164": ("bottleneck", 18),
}
ORDERINGS = ("conv_relu_ic", "baseline")
DEPTHS = (3, 9, 18, 27)  # blocks per stage of the scale curve's networks: 20 to 164 layers


@dataclasses.dataclass(frozen=True)
class Contender:
    """A way to train, and how many runs at once."""

    name: str
    loop: str  # "plain" and "tuned": reference.py's; "engine": ours
    precision: str
    processes: int = 1
    threads: int | None = None  # per process; None: PyTorch's default, at most one per core allowed
    runs: int = 1  # per process
    captured: bool = False  # whether steps on a GPU are captured as CUDA graphs

    @property
    def side_by_side(self) -> int:
        """How many runs train at the same time."""
        return self.processes * self.runs


PLAIN = Contender("plain loop", "plain", "float32")


def competitors(device: torch.device) -> list[Contender]:
    """The contenders of a race: the plain loop, tuned eager PyTorch, and the engine as it trains a study."""
    if device.type == "cuda":
        return [PLAIN, Contender("tuned loop", "tuned", "bfloat16"), *_on_a_gpu(RUNS_ON_A_GPU)]
    cores, ours = on_cores(), precisions(device)
    return [
        PLAIN,
        Contender("tuned loop", "tuned", ours[-1], cores, 1),
        *(Contender(f"ours, {precision}", "engine", precision, cores, 1) for precision in ours),
    ]


def scaled(device: torch.device) -> list[Contender]:
    """The contenders of a scale curve: the engine with one run, and with as many as the machine takes."""
    if device.type == "cuda":
        return _on_a_gpu((1, RUNS_ON_A_GPU[-1]))[1:]
    counts, precision = dict.fromkeys((1, on_cores())), precisions(device)[-1]
    return [Contender(f"ours, {precision}, {counted(count, 'run')}", "engine", precision, count, 1) for count in counts]


def precisions(device: torch.device) -> list[str]:
    """Those that are of use on a device, the fastest last."""
    return ["float32", "bfloat16"] if convolves_in_bfloat16(device) else ["float32"]


def _on_a_gpu(counts: tuple[int, ...]) -> list[Contender]:
    captured = [
        Contender(f"ours, captured, {counted(count, 'run')}", "engine", "bfloat16", runs=count, captured=True)
        for count in counts
    ]
    return [Contender("ours, not captured", "engine", "bfloat16"), *captured]
