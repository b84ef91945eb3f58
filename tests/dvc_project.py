"""A project of its own for a test that runs DVC for real: the repository's files, cut down to the smallest study."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import yaml

from tests.committing import WHO

ROOT = Path(__file__).parents[1]
PATIENCE = 240
EPOCHS = 6
RUNS = ("tiny-baseline-0", "tiny-conv_relu_ic-0", "tiny-ic_conv_relu-0")  # in the order in which DVC runs them
BASELINE, IC, LAST = RUNS
TRAININGS = [f"train@{run}" for run in RUNS]  # as a target: all but the report, which is drawn in seconds
TRAINED = re.compile(r"^run .* epoch \d+/\d+ ", re.MULTILINE)  # the line that each epoch ends with
STUDY = {
    "dataset": "synthetic",
    "train_images": 80,
    "test_images": 16,
    "device": "cpu",
    "epochs": EPOCHS,
    "batch_size": 8,
    "networks": {"tiny": {"block": "basic", "blocks_per_stage": 1}},
    "orderings": ["baseline", "conv_relu_ic", "ic_conv_relu"],
    "presets": {"replication": {}},
    "report": {"figure_dpi": 50, "accuracy_from": 0.0},
}
# In lib/machine/stopping.py of every such project: a training waits while all paths that the variable names are there.
HOLD = """\
        import glob, time
        while self.stage == "train" and not self.heard and all(
            map(glob.glob, os.environ.get("IC_TEST_HOLD", "nowhere").split(os.pathsep))
        ):
            time.sleep(0.01)
"""
ALL_CARDS = """
import runpy, sys
for card in sys.argv[1:]:
    sys.argv = ["train", card]
    runpy.run_module("stages.train", run_name="__main__")
"""


@dataclasses.dataclass
class Background:
    """A command under way, in a process group of its own, as a shell would start it."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text()

    def wait(self) -> int:
        return self.process.wait(PATIENCE)


@dataclasses.dataclass(frozen=True)
class Project:
    """A folder with the pipeline in it, and the commands that a user would type there."""

    folder: Path

    @classmethod
    def new(cls, folder: Path) -> "Project":
        """The repository's files with the smallest study, committed. Nothing has run yet."""
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
        for name in filter(None, names):
            of_a_study = name == "dvc.lock" or re.match(r"(metrics|plots)/(?!README)", name)
            if (ROOT / name).is_file() and not name.startswith("tests/") and not of_a_study:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        project = cls(folder)
        project.edit("lib/synthetic.py", "IMAGES_PER_FILE = 10_000", "IMAGES_PER_FILE = 40")  # 1 MB instead of 184
        project.edit("lib/machine/stopping.py", "        if self.heard:\n", f"{HOLD}        if self.heard:\n")
        project.configure(**STUDY)
        project.run("git", "init", "--quiet")
        project.commit()
        return project

    def copy(self, folder: Path) -> "Project":
        return Project(Path(shutil.copytree(self.folder, folder, symlinks=True)))

    # What is in it.

    def configure(self, **values: object) -> None:
        """Change parameters in params.yaml."""
        path = self.folder / "params.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values, sort_keys=False))

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.folder / name
        text = path.read_text()
        assert text.count(old) == 1, f"{name} has changed: let this test make its edit elsewhere"
        path.write_text(text.replace(old, new))

    def results(self, *folders: str) -> dict[str, bytes]:
        """The content of every output, by its path: of metrics/, models/ and plots/, or of some of them."""
        paths = [path for name in folders or ("metrics", "models", "plots") for path in (self.folder / name).iterdir()]
        written = [path for path in paths if path.name not in ("README.md", ".gitignore")]
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in written}

    def locked(self) -> set[str]:
        """The stages that dvc.lock has as done."""
        return set(yaml.safe_load((self.folder / "dvc.lock").read_text())["stages"])

    def checkpoint_folders(self, run: str) -> set[Path]:
        return set((self.folder / "checkpoints").glob(f"{run}-*"))

    # Commands.

    def held(self, run: str, epoch: int) -> dict[str, str]:
        """For a command's environment: that run's training waits after that epoch until a signal comes."""
        return {"IC_TEST_HOLD": f"{self.folder}/checkpoints/{run}-*/epoch-{epoch:04}.ckpt"}

    def environment(self, **extra: str) -> dict[str, str]:
        """This one without what a user's settings could change, and with DVC's site-wide files beside the project."""
        names = ("CIFAR10_SOURCE", "OMP_NUM_THREADS", "SHELL", "PYTHONPATH")
        kept = {key: v for key, v in os.environ.items() if key not in names and not key.startswith(("DVC_", "GIT_"))}
        return {
            **kept,
            **WHO,
            "GIT_CONFIG_GLOBAL": os.devnull,
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(self.folder.parent / "dvc-site"),
            "DVC_GLOBAL_CONFIG_DIR": str(self.folder.parent / "dvc-global"),
            "DVC_SYSTEM_CONFIG_DIR": str(self.folder.parent / "dvc-system"),
            "OMP_NUM_THREADS": "1",
            "SHELL": "/bin/sh",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            **extra,
        }

    def run(self, *command: str, status: int = 0, **environment: str) -> str:
        """Run a command to its end; its output, once its exit status has been checked."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == status, f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}"
        return done.stdout

    def dvc(self, *arguments: str, status: int = 0, **environment: str) -> str:
        return self.run(sys.executable, "-m", "dvc", *arguments, status=status, **environment)

    def commit(self) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", "A state")

    def train_without_dvc(self, *runs: str) -> str:
        """Train runs as a machine without DVC would, one after the other, in one process to save its start-up."""
        return self.run(sys.executable, "-c", ALL_CARDS, *(f"plan/{run}.json" for run in runs))

    @contextlib.contextmanager
    def background(self, *arguments: str, **environment: str) -> Iterator[Background]:
        """`dvc <arguments>` under way; at the end of the body nothing of it is left."""
        log = self.folder.parent / f"{self.folder.name}-{time.monotonic_ns()}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "dvc", *arguments],
                cwd=self.folder,
                env=self.environment(**environment),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield Background(process, log)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    # Processes.

    def processes(self, *words: str) -> list[psutil.Process]:
        """Living processes that work in this folder or below it, with these words in their command lines."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                here = Path(process.cwd()).is_relative_to(self.folder)
                if here and process.status() != psutil.STATUS_ZOMBIE and set(words) <= set(process.cmdline()):
                    found.append(process)
        return found

    def trainers(self) -> list[psutil.Process]:
        return self.processes("-m", "stages.train")

    def newest_epoch(self, run: str, besides: set[Path] = frozenset()) -> int:
        """The last epoch of a run that is on disk, in folders other than some; 0 if there is none."""
        names = [path.name for each in self.checkpoint_folders(run) - besides for path in each.glob("epoch-*.ckpt")]
        return max((int(re.sub(r"\D", "", name)) for name in names), default=0)


def wait_until(happened: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, f"in {PATIENCE} s it did not happen that {what}"
        time.sleep(0.02)


def skipped(run: str) -> str:
    return f"Stage 'train@{run}' didn't change, skipping"


def cached(run: str) -> str:
    return f"Stage 'train@{run}' is cached - skipping run"


def straight(project: Project, folder: Path, **params: object) -> dict[str, bytes]:
    """Metrics and models of an undisturbed training of a project's runs without DVC, with its parameters or others."""
    other = project.copy(folder)
    for name in ("checkpoints", "metrics", "models"):
        shutil.rmtree(other.folder / name)
    other.configure(**params)
    other.run("python", "-m", "stages.plan")
    study = json.loads((other.folder / "plan/study.json").read_text())
    output = other.train_without_dvc(*study["runs"])
    assert len(TRAINED.findall(output)) == len(study["runs"]) * study["epochs"]
    return other.results("metrics", "models")
