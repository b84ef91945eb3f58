"""tools/on_gpu: what is trained on a machine without DVC, DVC collects at home as if it had trained it."""

import re
from pathlib import Path

import pytest

from tests.dvc_project import EPOCHS, Project

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
MISSING = (  # there: all that the requirements name but torch, numpy and tqdm
    *("dvc", "jinja2", "matplotlib", "pandas", "plotly", "pooch", "pydantic", "ray"),
    *("requests", "rich", "scipy", "seaborn", "statsmodels", "torchvision", "yaml"),
)
TRAINED = re.compile(r"^run .* epoch \d+/\d+ ", re.MULTILINE)


@pytest.fixture
def without(tmp_path: Path) -> str:
    """A path for Python on which packages are missing."""
    folder = tmp_path / "without"
    folder.mkdir()
    for name in MISSING:
        (folder / f"{name}.py").write_text(f"raise ImportError('{name} is not on this machine')\n")
    return str(folder)


def test_two_plans_are_trained_there_and_collected_at_home_without_training(tmp_path: Path, without: str) -> None:
    (tmp_path / "home").mkdir()
    home = Project.new(tmp_path / "home")
    home.configure(orderings=["conv_relu_ic"])
    home.dvc("repro", "plan", "download")
    (home.folder / "crop_flip").mkdir()
    other = (home.folder / "params.yaml").read_text().replace("augmentation: none", "augmentation: crop_flip")
    (home.folder / "crop_flip" / "params.yaml").write_text(other)
    home.run("sh", "-c", "cd crop_flip && PYTHONPATH=.. python -m stages.plan")

    there = home.copy(tmp_path / "there")
    said = there.run("tools/on_gpu", "study", "crop_flip", CUDA_VISIBLE_DEVICES="", PYTHONPATH=without)
    assert said.startswith("on_gpu: no GPU here, so this will be slow, PyTorch ")
    assert said.count("runs are trained;") == 2
    assert said.count(f"epoch {EPOCHS}/{EPOCHS}") == 2

    (there.folder / "checkpoints").rename(home.folder / "checkpoints")
    for command, folder in (("repro",), "."), (("exp", "run", "-S", "augmentation=crop_flip"), "crop_flip"):
        said = home.dvc(*command, "train")
        assert said.count("nothing is left to train") == 1 and not TRAINED.search(said)
        assert home.results("metrics", "models") == Project(there.folder / folder).results("metrics", "models")


@pytest.fixture
def unplanned(tmp_path: Path) -> Project:
    (tmp_path / "project").mkdir()
    return Project.new(tmp_path / "project")


@pytest.fixture
def ready(unplanned: Project) -> Project:
    """As far as is looked at before anything begins."""
    unplanned.run("python", "-m", "stages.plan")
    put_data(unplanned)
    return unplanned


def put_data(project: Project) -> None:
    batches = project.folder / "data/cifar10/cifar-10-batches-py"
    batches.mkdir(parents=True)
    (batches / "test_batch").touch()


def test_what_a_later_step_lacks_is_told_before_the_first_begins(ready: Project, without: str) -> None:
    said = ready.run("tools/on_gpu", "study", "benchmark", status=2, PYTHONPATH=without, CUDA_VISIBLE_DEVICES="")
    assert said.splitlines()[-1].startswith("on_gpu: a step cannot begin (ImportError: ")


def test_without_pytorch_the_cure_is_told(ready: Project, without: str) -> None:
    Path(without, "torch.py").write_text("raise ImportError('no torch here')\n")
    said = ready.run("tools/on_gpu", "study", status=2, PYTHONPATH=without)
    assert "activate the environment that has it (docs/gpu.md)" in said.splitlines()[-1]


def test_a_plan_that_is_missing_is_named_before_anything_is_trained(unplanned: Project) -> None:
    for steps, missing in ((), "./plan"), (("crop_flop",), "crop_flop/plan"):
        said = unplanned.run("tools/on_gpu", *steps, status=2)
        assert said.splitlines()[0] == (
            f"on_gpu: there is no {missing}/study.json: make the plan where DVC is (docs/gpu.md)"
        )
    unplanned.run("python", "-m", "stages.plan")
    (said,) = unplanned.run("tools/on_gpu", "study", status=2).splitlines()
    assert said.startswith("on_gpu: there is no data set in data/cifar10: ")
    put_data(unplanned)
    for folder in ("other/plan", "other/data/cifar10"):
        (unplanned.folder / folder).mkdir(parents=True)
    (unplanned.folder / "other/plan/study.json").touch()
    (said,) = unplanned.run("tools/on_gpu", "other", status=2).splitlines()
    assert said.startswith("on_gpu: other/data/cifar10 has data of its own: move it away")
