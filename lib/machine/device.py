"""The machine a run trains on: which device, and how it is made deterministic."""

import dataclasses
import math
import os

import torch
from torch.utils import deterministic

from lib.errors import BadInput
from lib.machine import limits
from lib.words import counted

OF_BFLOAT16 = ("bf16", "ne_convert")  # in the names of CPU capabilities


@dataclasses.dataclass(frozen=True)
class Circumstances:
    """Where epochs were trained. Only equal circumstances promise bit-identical results."""

    torch: str
    device: str  # "cpu", or the GPU's name
    instructions: str | None = None  # of a CPU: the instructions in use, as "AVX512 avx512_bf16"
    threads: int | None = None  # of a CPU: sums are split among them
    layers: str | None = None  # of a GPU: "fused" or "one by one"

    @property
    def place(self) -> str:
        """The device, as metrics name it; on a GPU it says so if layers were not fused."""
        return f"{self.device}, layers one by one" if self.layers == "one by one" else self.device

    def __str__(self) -> str:
        cpu = f" ({self.instructions}, {counted(self.threads, 'thread')})" if self.threads else ""
        layers = f" (layers {self.layers})" if self.layers else ""
        return f"PyTorch {self.torch} on {self.device}{cpu}{layers}"


def circumstances(device: torch.device, *, fused: bool = False) -> Circumstances:
    """This process's circumstances on `device`, and whether layers are fused there."""
    version = str(torch.__version__)  # a TorchVersion, which a checkpoint could not hold
    if device.type == "cpu":
        return Circumstances(version, "cpu", instructions(), torch.get_num_threads())
    return Circumstances(version, torch.cuda.get_device_name(device), layers="fused" if fused else "one by one")


def instructions() -> str:
    """The widest vector instructions that PyTorch uses here, and the CPU's bfloat16 instructions.

    oneDNN rounds differently with the latter, which only some CPUs with AVX-512 have.
    """
    there = sorted(name for name, has in torch.cpu.get_capabilities().items() if has)
    of_bfloat16 = [name for name in there if any(part in name for part in OF_BFLOAT16)]
    return " ".join([torch.backends.cpu.get_cpu_capability(), *of_bfloat16])


def convolves_in_bfloat16(device: torch.device) -> bool:
    """Whether PyTorch has quick convolutions in bfloat16 for a device; others take several times as long as float32.

    Intel's and AMD's CPUs need AVX-512.
    """
    if device.type != "cpu":
        return True
    asked = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)  # no public function tells
    return torch.backends.mkldnn.is_available() and bool(asked())


def pick_device(wanted: str) -> torch.device:
    """The device for "auto" (a GPU if there is one), "cpu" or "cuda". Raises BadInput for "cuda" without a GPU."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise BadInput("device: cuda is requested, but PyTorch sees no GPU: set `device: auto` or cpu in params.yaml")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def cores() -> int:
    """How many of the machine's cores this process may use: a scheduler or container may grant it only a few."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, limits.cpus())))


def threads_for(last: Circumstances | None) -> int:
    """How many threads a run uses on a CPU: as many as when last trained, if there are that many cores.

    With another number its sums would be split, and rounded, differently.
    """
    threads = last.threads if last else None
    return threads if threads and threads <= cores() else min(torch.get_num_threads(), cores())


def make_deterministic() -> None:
    """Refuse nondeterministic algorithms, and convolutions chosen by benchmarking."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms(True), which also loads torch.compile
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a debugging aid, 40 % of a CPU step
    torch.backends.cudnn.benchmark = False
    # precision: float32 means float32; TF32 rounds to 10 bits, and an environment variable can ask for it.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
