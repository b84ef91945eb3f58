"""The rules of the architecture: who may import whom, and what may make a stage stale."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from stages import fleet, train

ROOT = Path(__file__).parents[1]
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
STAGES = ["plan", "download", "train", "report"]
VERBS = [*STAGES, "fleet"]  # the fleet is no stage of DVC's: it trains what DVC finds stale, then lets DVC collect it
LEAVES = {"errors", "files"}  # bad input and whole files: every module may use them

# The arrows of the design: importer -> imported, besides the leaves.
ARROWS = {
    "stages.plan": {"card", "plan", "words"},
    "stages.download": {"card", "obtain"},
    "stages.train": {
        "batches",
        "card",
        "cards",
        "checkpoint",
        "cifar10",
        "metrics",
        "progress",
        "resnet",
        "source",
        "training",
        "turns",
        "words",
        "gpu.fusion",
        "machine.device",
        "machine.failures",
        "machine.memory",
        "machine.stopping",
    },
    "stages.report": {
        "figure4",
        "metrics",
        "table1",
        "report.circumstances",
        "report.claims",
        "report.claims_figure",
        "report.commit",
        "report.curves",
        "report.drawing",
        "report.page",
        "report.results",
        "report.sections",
        "stats.arms",
    },
    "stages.fleet": {
        "card",
        "cifar10",
        "runs",
        "fleet.cluster",
        "fleet.driver",
        "fleet.dvc",
        "fleet.members",
        "fleet.node",
        "fleet.table",
        "machine.stopping",
    },
    "batches": {"cifar10"},
    "cards": {"card"},
    "checkpoint": {"lock", "metrics", "machine.device"},
    "cifar10": {"card"},
    "figure4": {"metrics", "paper", "report.drawing", "report.look", "report.panels", "stats.arms"},
    "ic": {"dropout"},
    "metrics": {"card"},
    "obtain": {"card", "cifar10", "synthetic"},
    "paper": {"card"},
    "plan": {"card", "strict_yaml", "words"},
    "progress": {"metrics", "machine.stopping"},
    "recipe": {"card"},
    "resnet": {"card", "dropout", "ic", "gpu.fusion"},
    "runs": {"card", "checkpoint", "progress", "machine.device", "machine.limits"},
    "synthetic": {"cifar10"},
    "table1": {
        "metrics",
        "paper",
        "words",
        "report.cells",
        "report.markdown",
        "stats.arms",
        "stats.paired",
        "stats.sample",
    },
    "training": {"checkpoint", "metrics", "optimizer", "gpu.captured", "gpu.cast"},
    "fleet.cluster": {"fleet.worker"},
    "fleet.driver": {"checkpoint", "fleet.members", "fleet.worker"},
    "fleet.node": {"machine.stopping"},
    "fleet.members": {"card", "checkpoint", "runs", "turns", "fleet.worker"},
    "fleet.table": {"runs", "fleet.members"},
    "fleet.worker": {"lock", "fleet.node"},
    "gpu.fused": {"gpu.fused_kernels"},
    "gpu.fusion": {"ic", "gpu.convolved", "gpu.fused", "machine.failures"},
    "machine.device": {"words", "machine.limits"},
    "report.cells": {"stats.paired", "stats.sample"},
    "report.circumstances": {"metrics", "paper", "recipe", "words", "report.commit", "report.panels", "stats.arms"},
    "report.claims": {
        "metrics",
        "paper",
        "table1",
        "report.cells",
        "report.markdown",
        "stats.arms",
        "stats.convergence",
        "stats.paired",
        "stats.sample",
    },
    "report.claims_figure": {"paper", "report.claims", "report.drawing"},
    "report.curves": {"metrics", "paper", "table1", "report.look", "report.panels", "stats.sample"},
    "report.commit": {"git"},
    "report.drawing": {"report.look"},
    "report.page": {"report.look"},
    "report.panels": {"metrics", "paper", "stats.arms"},
    "report.results": {"card", "metrics", "paper", "recipe", "words", "stats.arms"},
    "report.sections": {"paper", "table1", "report.cells", "report.claims", "report.page", "stats.paired"},
    "stats.arms": {"metrics"},
    "stats.paired": {"metrics", "stats.arms", "stats.sample"},
    "stats.power": {"stats.paired"},
}
STANDARD_LIBRARY_ONLY = [
    *("card", "cards", "errors", "files", "git", "lock", "metrics", "paper", "recipe", "source", "words", "fleet.dvc"),
    *("fleet.node", "fleet.worker", "machine.limits", "machine.memory", "machine.stopping", "report.commit"),
    *("stats.arms", "stats.convergence", "stats.sample"),
]
WHERE_TRAINING_RUNS = {"torch", "torchvision", "triton", "numpy", "tqdm"}  # what a GPU machine without DVC has


def path_of(module: str) -> Path:
    folder = ROOT if module.startswith("stages.") else ROOT / "lib"
    return folder / (module.replace(".", "/") + ".py")


def in_lib(source: str, name: str) -> str:
    """The module that `from source import name` needs: source itself, or name where source is a package."""
    inside = source.split(".")[1:]
    return ".".join(inside if path_of(".".join(inside)).exists() else [*inside, name])


def imports_of(module: str) -> tuple[set[str], set[str]]:
    """The lib modules and the outside packages that a module imports, wherever in it."""
    inside, outside = all_imports_of(module)
    return inside, outside - set(sys.stdlib_module_names)


def all_imports_of(module: str) -> tuple[set[str], set[str]]:
    """The same, and the modules of the standard library."""
    inside, outside = set(), set()
    for node in ast.walk(ast.parse(path_of(module).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "lib":
            inside |= {in_lib(node.module, alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            outside.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            outside |= {alias.name.split(".")[0] for alias in node.names}
    return inside, outside


def closure(module: str) -> set[str]:
    found, todo = set(), {module}
    while todo:
        found |= todo
        todo = set().union(*(imports_of(each)[0] for each in todo)) - found
    return found


PACKAGES = sorted(path.parent.name for path in (ROOT / "lib").glob("*/__init__.py"))
MODULES = sorted(
    ".".join(path.relative_to(ROOT / "lib").with_suffix("").parts)
    for path in (ROOT / "lib").rglob("*.py")
    if path.stem != "__init__"
)


@pytest.mark.parametrize("module", [*MODULES, *(f"stages.{verb}" for verb in VERBS)])
def test_imports_follow_the_arrows(module):
    assert imports_of(module)[0] - LEAVES == ARROWS.get(module, set())


def test_every_stage_module_is_a_stage_or_drawn():
    assert {path.stem for path in (ROOT / "stages").glob("*.py")} - {"__init__"} == set(VERBS)


@pytest.mark.parametrize("stage", STAGES)
def test_deps_of_a_stage_are_exactly_its_import_closure(stage):
    listed = {dep for dep in PIPELINE["stages"][stage]["deps"] if dep.endswith(".py")}
    assert listed == {str(path_of(module).relative_to(ROOT)) for module in closure(f"stages.{stage}")}


def test_the_report_lists_what_lies_beside_the_page():
    beside = {
        str(path.relative_to(ROOT)) for path in (ROOT / "lib").rglob("*.*") if path.suffix not in (".py", ".pyc", "")
    }
    listed = {dep for dep in PIPELINE["stages"]["report"]["deps"] if dep.startswith("lib/") and not dep.endswith(".py")}
    assert listed == beside == {"lib/report/page.css", "lib/report/page.html", "lib/report/page.js"}


@pytest.mark.parametrize("package", ["lib", *(f"lib/{name}" for name in PACKAGES), "stages"])
def test_packages_are_empty_since_no_stage_lists_them(package):
    (docstring,) = ast.parse((ROOT / package / "__init__.py").read_text()).body
    assert isinstance(docstring, ast.Expr)


@pytest.mark.parametrize("module", STANDARD_LIBRARY_ONLY)
def test_modules_that_travel_use_the_standard_library_only(module):
    assert imports_of(module)[1] == set()


def test_training_needs_no_dvc_no_pydantic_no_network():
    outside = set().union(*(imports_of(module)[1] for module in closure("stages.train")))
    assert outside <= WHERE_TRAINING_RUNS


def test_training_is_imported_without_triton_and_the_fleets_stage_without_ray_and_rich():
    without = (
        "import sys; sys.modules.update(dict.fromkeys(('triton', 'ray', 'rich'))); import stages.train, stages.fleet"
    )
    assert subprocess.run([sys.executable, "-c", without], cwd=ROOT).returncode == 0


def test_a_checkpoint_is_bound_to_all_code_that_decides_results():
    # These keep, show, or say when; the number of threads, for which limits are asked, a checkpoint knows.
    cannot = {"cards", "checkpoint", "errors", "files", "lock", "metrics", "progress", "source", "turns", "words"}
    cannot |= {f"machine.{name}" for name in ("failures", "limits", "memory", "stopping")}
    decide = {str(path_of(module).relative_to(ROOT)) for module in closure("stages.train") - cannot}
    assert set(train.DECIDES_RESULTS) == decide


@pytest.mark.parametrize(("stage", "clocks"), [("report", {"time", "datetime"}), ("train", {"datetime"})])
def test_what_is_written_cannot_tell_the_day(stage, clocks):
    """A rerun gives the same bytes. (Training measures how long it takes, for the display.)"""
    assert not {module for module in closure(f"stages.{stage}") if clocks & all_imports_of(module)[1]}


def test_pydantic_yaml_and_the_downloader_live_in_one_module_each():
    users = {package: {m for m in MODULES if package in imports_of(m)[1]} for package in ("pydantic", "yaml", "pooch")}
    assert users == {"pydantic": {"plan"}, "yaml": {"strict_yaml"}, "pooch": {"obtain"}}


def test_ray_and_rich_are_the_fleets_alone_and_a_node_loads_no_torch_beside_the_training():
    users = {package: {m for m in MODULES if package in imports_of(m)[1]} for package in ("ray", "rich")}
    assert users == {"ray": {"fleet.cluster"}, "rich": {"fleet.table"}}
    of_the_fleet = {"fleet.cluster", "fleet.node", "fleet.worker"}
    assert closure("fleet.cluster") == of_the_fleet | {"errors", "files", "lock", "machine.stopping"}


def test_a_node_gets_all_the_code_that_trains():
    with fleet.code_that_trains() as folder:
        there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    needed = {str(path_of(module).relative_to(ROOT)) for module in closure("stages.train") | closure("fleet.cluster")}
    packages = {f"{Path(name).parent}/__init__.py" for name in needed}
    assert there >= needed | packages
    assert all(name.endswith(".py") for name in there)


def test_the_design_page_lists_every_module_in_its_folder():
    tree = re.search(r"^```\n(.*?)^```", (ROOT / "docs/design.md").read_text(), flags=re.M | re.S)
    listed, package = [], ""
    for line in tree[1].splitlines():
        if folder := re.match(r"lib/(\w*)/? ", line):
            package = folder[1]
        elif file := re.match(r"  (\w+)\.py ", line):
            listed.append(".".join(filter(None, (package, file[1]))))
    assert sorted(listed + ["gpu.fused_kernels"]) == MODULES  # that is told beside gpu.fused


@pytest.mark.parametrize("stage", ["plan", "download", "report"])
def test_torch_is_for_training_alone(stage):
    """Its import takes seconds."""
    assert "torch" not in set().union(*(imports_of(module)[1] for module in closure(f"stages.{stage}")))


def test_only_the_plan_stage_opens_params_yaml():
    for path in [*(ROOT / "lib").rglob("*.py"), *(ROOT / "stages").glob("*.py")]:
        opens = re.search(r"""(open|Path)\(["']params\.yaml""", path.read_text())
        assert bool(opens) == (path == ROOT / "stages/plan.py"), path


def test_plan_depends_on_every_parameter():
    assert sorted(PIPELINE["stages"]["plan"]["params"]) == sorted(PARAMS)


def test_no_training_stage_has_a_plain_uncached_output():
    for out in PIPELINE["stages"]["train"]["outs"]:
        assert isinstance(out, str), "a plain out with cache: false would lose DVC's run cache"


def test_dvc_sees_nineteen_stages_of_which_sixteen_train():
    command = [sys.executable, "-m", "dvc", "stage", "list", "--name-only"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    runs = [f"train@{n}-{o}-{s}" for n in PARAMS["networks"] for o in PARAMS["orderings"] for s in PARAMS["seeds"]]
    assert len(runs) == 16
    assert sorted(names) == sorted(["plan", "download", "report", *runs])


def test_plots_name_every_run_of_the_first_seed_once():
    named = [file for panel in PIPELINE["plots"] for block in panel.values() for file in block["y"]]
    wanted = [f"metrics/{n}-{o}-${{seeds[0]}}.json" for n in PARAMS["networks"] for o in PARAMS["orderings"]]
    assert named == wanted
    assert len(PIPELINE["plots"]) == 4


def test_params_file_is_as_dvc_would_write_it():
    text = (ROOT / "params.yaml").read_text()
    assert not re.search(r"[&*]\w+\s*$|: \[", text, flags=re.MULTILINE), "block style, no aliases"


@pytest.mark.parametrize("stage", VERBS)
def test_every_stage_explains_itself(stage, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [stage, "--help"])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"stages.{stage}").main()
    out = capsys.readouterr().out
    assert ended.value.code == 0
    assert f"python -m stages.{stage}" in out
    assert "->" in out or "→" in out


COMMANDS = [
    f"{folder}.{path.stem}"
    for folder in ("tools", "benchmarks")
    for path in sorted((ROOT / folder).glob("*.py"))
    if "argparse.ArgumentParser(" in path.read_text()
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [command, "--help"])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(command).main()
    assert ended.value.code == 0
    assert f"python -m {command.removesuffix('.__main__')}" in capsys.readouterr().out


def test_requirements_are_pinned_by_hash_and_name_no_index():
    for name in ("requirements.txt", "requirements-fleet.txt", "requirements-dev.txt"):
        text = (ROOT / name).read_text()
        assert "://" not in text and "--index" not in text
        requirements = re.findall(r"^\S+==\S+.*?(?=^\S|\Z)", text, flags=re.MULTILINE | re.DOTALL)
        assert len(requirements) > 30
        for requirement in requirements:
            assert "--hash=sha256:" in requirement


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    heads = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_every_link_between_the_pages_leads_to_a_file_and_a_heading_of_it():
    pages = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    links = [
        (ROOT / page, link)
        for page in pages.split()
        for link in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text())
    ]
    assert len(links) > 30
    for page, link in links:
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{page}: {link}"
        assert not anchor or anchor in anchors(target), f"{page}: {link}"


def test_nothing_in_the_product_points_outside_of_it():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in files:
        path = ROOT / name
        if (
            path.suffix in {".py", ".md", ".yaml", ".toml", ".cff", ""}
            and path.is_file()
            and name != "tests/test_pipeline.py"
        ):
            assert not re.search(r"\.\./shared|(?<![\w.])/(work|farm)/", path.read_text(errors="replace")), name
