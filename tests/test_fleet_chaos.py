"""The fleet on a real Ray cluster of three nodes that loses workers, a whole node, and the driver; under DVC."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib.runs import on_cores
from tests.dvc_project import Project, wait_until
from tests.ray_cluster import SETTINGS, RayCluster

pytestmark = pytest.mark.slow

EPOCHS = 6
RUNS = ("tiny-baseline-0", "tiny-conv_relu_ic-0")


def held_by(gate: Path) -> dict[str, str]:
    """For the environment: each training waits after two epochs while that file is there (tests/dvc_project.py)."""
    return {"IC_TEST_HOLD": f"{gate}{os.pathsep}checkpoints/*/epoch-0002.ckpt"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    folder = Path(tempfile.mkdtemp(prefix="ic-"))  # short: Ray puts sockets there
    cluster = RayCluster(folder)
    try:
        for name in ("one", "two"):
            cluster.add(name, **held_by(folder / "gate"))
        yield cluster
    finally:
        cluster.close()
        wait_until(lambda: not cluster.processes(), "nothing of the cluster was left")
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project.new(tmp_path_factory.mktemp("planned") / "project")
    project.configure(epochs=EPOCHS, train_images=32, orderings=["baseline", "conv_relu_ic"])
    project.dvc("repro", "plan", "download")
    return project


@pytest.fixture(scope="module")
def alone(planned: Project, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What `dvc repro` alone makes of it, one run after the other."""
    project = planned.copy(tmp_path_factory.mktemp("alone") / "project")
    project.dvc("repro")
    return project.results()


@pytest.fixture
def gate(cluster: RayCluster) -> Iterator[Path]:
    """The cluster's trainings wait after two epochs until it is unlinked."""
    gate = cluster.folder / "gate"
    gate.touch()
    yield gate
    gate.unlink(missing_ok=True)


@pytest.fixture
def project(planned: Project, tmp_path: Path) -> Project:
    return planned.copy(tmp_path / "project")


class Driver:
    """`python -m stages.fleet` under way in a project: on the head of a cluster, or without one."""

    def __init__(self, project: Project, cluster: RayCluster | None, **environment: str) -> None:
        at = ["--address", cluster.address] if cluster else []
        self.log = project.folder.parent / f"fleet-{time.monotonic_ns()}.log"
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(
                [*(cluster.inside if cluster else []), sys.executable, "-m", "stages.fleet", *at],
                cwd=project.folder,
                env=project.environment(**SETTINGS, **environment),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self.log.read_text()

    def ends(self, status: int) -> str:
        assert self.process.wait(180) == status, self.output
        return self.output


@contextlib.contextmanager
def driving(project: Project, cluster: RayCluster | None, **environment: str) -> Iterator[Driver]:
    driver = Driver(project, cluster, **environment)
    try:
        yield driver
    except AssertionError as error:
        raise AssertionError(f"{error}\n{driver.output}") from error
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(driver.process.pid, signal.SIGKILL)
        driver.process.wait()


def both_are_under_way(project: Project) -> bool:
    return all(project.newest_epoch(run) == 2 for run in RUNS)


def test_a_worker_and_a_whole_node_are_killed_and_the_results_are_those_of_dvc_alone(
    cluster: RayCluster, gate: Path, project: Project, alone: dict[str, bytes]
) -> None:
    with driving(project, cluster) as driver:
        wait_until(lambda: both_are_under_way(project), "both runs had two epochs done")
        (trainer,) = cluster.trainers("one")
        trainer.parent().kill()
        cluster.kill("two")
        wait_until(lambda: driver.output.count("goes on when a slot is free") >= 2, "the driver saw both deaths")
        cluster.add("two", **held_by(gate))
        gate.unlink()
        output = driver.ends(0)
    assert output.count("FAILED") == 0
    assert all(f"{run}  epoch {EPOCHS}/{EPOCHS}" in output for run in RUNS)
    for run in RUNS:  # none began anew: what is trained twice at most is the epoch that was under way
        assert output.count(f"{run}  epoch 1/{EPOCHS}") <= 1
    assert output.count("nothing is left to train") == len(RUNS)
    assert project.results() == alone
    assert "up to date" in project.dvc("status")
    kept = {path.parent for path in cluster.folder.glob("*/ic-fleet-*/checkpoints/*/epoch-*")}
    # What the node that was killed had of a run that went to the other one nobody could clear away.
    assert not [path for path in kept if (path / f"epoch-{EPOCHS:04}.ckpt").exists()], "a node keeps no run it finished"


def test_the_driver_is_killed_its_trainings_end_and_the_same_command_goes_on(
    cluster: RayCluster, gate: Path, project: Project, alone: dict[str, bytes]
) -> None:
    with driving(project, cluster) as driver:
        wait_until(lambda: both_are_under_way(project), "both runs had two epochs done")
        driver.process.kill()
        driver.process.wait()
        wait_until(lambda: not cluster.trainers(), "the trainings ended with it")
    gate.unlink()
    with driving(project, cluster) as driver:
        output = driver.ends(0)
    assert not any(f"{run}  epoch {epoch}/{EPOCHS}" in output for run in RUNS for epoch in (1, 2))
    assert project.results() == alone


@pytest.mark.skipif(on_cores() < 2, reason="both runs are to be under way at once")
def test_a_signal_stops_a_cluster_of_its_own_and_the_same_command_goes_on(
    project: Project, alone: dict[str, bytes]
) -> None:
    """Without an address: the driver starts Ray on this machine, and Ray ends with it."""
    with tempfile.TemporaryDirectory(prefix="ic-") as short:
        environment = {"TMPDIR": short, "RAY_TMPDIR": short}
        with driving(project, None, **environment, **held_by(Path(short))) as driver:
            wait_until(lambda: both_are_under_way(project), "both runs had two epochs done")
            driver.process.terminate()
            assert "stopped by SIGTERM" in driver.ends(143)
        started = [each for each in Path("/proc").glob("[0-9]*") if short in environment_of(each)]
        assert started == []
        with driving(project, None, **environment) as driver:
            output = driver.ends(0)
        assert not any(f"{run}  epoch 1/" in output for run in RUNS)
        assert project.results() == alone


def environment_of(process: Path) -> str:
    try:
        return (process / "environ").read_text(errors="replace")
    except OSError:
        return ""


def test_a_gpu_takes_several_runs_and_the_one_that_fails_does_so_alone(cluster: RayCluster, project: Project) -> None:
    """The GPU is one that Ray believes in: the placement is tried, and that PyTorch does not see it is said."""
    cluster.add("gpu", cpus=0, gpus=1, CUDA_VISIBLE_DEVICES="77")
    # At such a rate only the baseline, which normalises the sum of both branches' inputs, stays finite.
    project.configure(epochs=2, device="auto", optimizer="sgd", learning_rate=100.0)
    try:
        with driving(project, cluster) as driver:
            output = driver.ends(2)
    finally:
        cluster.kill("gpu")
    assert "whose GPU PyTorch does not see" in output
    good, bad = RUNS
    assert f"fleet: {bad}: the loss became " in output and "lower learning_rate" in output
    assert f"fleet: 1 of 2 runs failed, the others are trained: {bad}." in output
    assert f"train@{good}" in project.locked() and f"train@{bad}" not in project.locked()


def test_a_node_with_another_torch_and_a_cluster_with_another_ray_are_refused_in_one_line(
    cluster: RayCluster, project: Project, tmp_path: Path
) -> None:
    other = tmp_path / "torch-9.9.9.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 9.9.9\n")
    for name in ("one", "two"):
        cluster.kill(name)
    cluster.add("odd", PYTHONPATH=str(tmp_path))
    with driving(project, cluster) as driver:
        last = driver.ends(2).splitlines()[-1]
    assert last.startswith("fleet: ") and "has torch 9.9.9, here is 2." in last and "requirements-fleet.txt" in last

    pretend = "import ray, runpy, sys; ray.__version__ = '1.0.0'; sys.argv = ['fleet', *sys.argv[1:]]; "
    command = pretend + "runpy.run_module('stages.fleet', run_name='__main__')"
    output = project.run(
        *cluster.inside, sys.executable, "-c", command, "--address", cluster.address, status=2, **SETTINGS
    )
    last = output.splitlines()[-1]
    assert last.startswith(f"fleet: --address {cluster.address}: Ray and Python must be the same there and here")
    assert {f"train@{run}" for run in RUNS} <= set(json.loads(project.dvc("status", "--json")))  # nothing was trained
