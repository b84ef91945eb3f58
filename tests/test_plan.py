import os
import re
import shlex
import subprocess
import sys
import typing
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import load_yaml

from lib import obtain
from lib.card import RECIPE
from lib.errors import BadInput
from lib.plan import Study, read_study
from lib.recipe import OF_THE_STUDY, is_sound
from lib.strict_yaml import read_mapping
from stages import plan as stage

REPOSITORY = Path(__file__).resolve().parents[1]
PARAMS = (REPOSITORY / "params.yaml").read_text(encoding="utf-8")
PRESETS = yaml.safe_load(PARAMS)["presets"]
KEYS = list(yaml.safe_load(PARAMS))


def with_key(key: str, value: str, text: str = PARAMS) -> str:
    """The parameters with a top-level key's value, be it in its line or in the lines below, replaced."""
    changed, times = re.subn(
        rf"^{key}:.*\n(?:[ #-].*\n)*", lambda _: f"{key}: {value}\n", text + "\n", flags=re.MULTILINE
    )
    assert times == 1
    return changed


def study_of(folder: Path, text: str):
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return read_study(path)


def cards_of(folder: Path, text: str) -> dict[str, bytes]:
    """The run cards' bytes as stages.plan would write them."""
    cards = study_of(folder, text).cards()
    for card in cards:
        card.write(folder / "cards" / card.name)
    return {card.name: (folder / "cards" / card.name).read_bytes() for card in cards}


# ---- good parameters


@pytest.mark.parametrize("preset", PRESETS)
def test_each_preset_makes_a_run_of_each_network_and_ordering(preset, tmp_path):
    cards = study_of(tmp_path, with_key("preset", preset)).cards()
    networks, orderings = yaml.safe_load(PARAMS)["networks"], yaml.safe_load(PARAMS)["orderings"]
    assert [card.name for card in cards] == [f"{net}-{order}-0" for net in networks for order in orderings]
    assert len({card.name for card in cards}) == 16


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_wins_over_what_it_names_and_changes_nothing_else(preset, tmp_path):
    wanted = yaml.safe_load(PARAMS) | PRESETS[preset] | {"preset": preset}
    del wanted["presets"]
    assert study_of(tmp_path, with_key("preset", preset)).model_dump() == wanted


def test_the_original_recipe_is_what_it_was():
    """As docs/recipe.md tells."""
    assert PRESETS["original"] == {
        "epochs": 200,
        "learning_rate_rule": "steps",
        "weight_decay": 0.0001,
        "augmentation": "crop_flip",
    }
    steps = yaml.safe_load(PARAMS)
    assert (steps["learning_rate_steps"], steps["learning_rate_factor"]) == ([80, 120, 160], 0.1)


def test_the_stage_tells_what_the_preset_sets_itself(tmp_path):
    """`-S epochs=120` changes nothing under a preset that sets epochs."""
    assert "runs of preset replication, of " in plan(tmp_path, PARAMS).stdout
    (tmp_path / "rehearsal").mkdir()
    told = plan(tmp_path / "rehearsal", PARAMS.replace("preset: replication", "preset: rehearsal", 1)).stdout
    sets = "dataset, train_images, test_images, batch_size, epochs, networks, report"
    assert f"16 runs of preset rehearsal (which itself sets {sets}), of 3 epochs each" in told


def test_a_preset_that_names_one_network_leaves_the_others(tmp_path):
    one = "{replication: {networks: {resnet164: {block: basic, blocks_per_stage: 5}}}}"
    sizes = {key: each.blocks_per_stage for key, each in study_of(tmp_path, with_key("presets", one)).networks.items()}
    assert sizes == {"resnet110": 18, "resnet164": 5, "resnetb110": 12, "resnetb164": 18}


def test_a_network_can_be_taken_away_or_replaced_though_a_preset_that_is_not_used_names_it(tmp_path):
    text = with_key("networks", f"{{resnet20: {ONE}}}")
    assert list(study_of(tmp_path, text).networks) == ["resnet20"]
    message = refusal(tmp_path, with_key("preset", "rehearsal", text).encode())
    assert "presets.rehearsal.networks: there is no network 'resnet110'" in message
    assert "take it out here (-S '~presets.rehearsal.networks.resnet110'), or add it" in message


def test_pyyaml_and_dvc_read_the_same_parameters():
    path = REPOSITORY / "params.yaml"
    assert repr(read_mapping(path)) == repr(load_yaml(path))  # repr tells 1 from 1.0 and True


def test_planning_does_not_import_torch():
    code = "import sys, lib.plan; sys.exit(','.join({'torch', 'torchvision', 'numpy', 'dvc'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# ---- a card holds what its run uses

USES = [  # key and value to set, ordering, field of the card, whether it is there
    ("dropout_p", "0.1", "baseline", "dropout_p", False),
    ("dropout_p", "0.1", "baseline_ic", "dropout_p", True),
    ("dropout_p", "0.1", "relu_bn_conv", "dropout_p", False),
    ("dropout_p", "0.1", "relu_ic_conv", "dropout_p", True),
    ("dropout_p", "0.0", "relu_ic_conv", "dropout_p", True),
    ("dropout_p", "0.1", "relu_dropout_conv", "dropout_p", True),
    ("learning_rate_rule", "constant", "baseline", "learning_rate_steps", False),
    ("learning_rate_rule", "constant", "baseline", "learning_rate_factor", False),
    ("learning_rate_rule", "steps", "baseline", "learning_rate_steps", True),
    ("learning_rate_rule", "steps", "baseline", "learning_rate_factor", True),
    ("optimizer", "adam", "baseline", "momentum", False),
    ("optimizer", "sgd", "baseline", "momentum", True),
]


@pytest.mark.parametrize(("key", "value", "ordering", "field", "there"), USES)
def test_a_card_holds_a_field_only_where_its_run_uses_it(key, value, ordering, field, there, tmp_path):
    text = with_key("orderings", f"[{ordering}]", with_key(key, value))
    for content in cards_of(tmp_path, text).values():
        assert (f'"{field}"'.encode() in content) == there


CHANGES = [  # key, another value, what the cards that change have in their names, how many those are
    ("dropout_p", "0.1", "ic", 12),
    ("learning_rate_steps", "[7]", "nothing", 0),
    ("learning_rate_factor", "0.5", "nothing", 0),
    ("momentum", "0.5", "nothing", 0),
    ("report", "{figure_dpi: 300, accuracy_from: 0.9}", "nothing", 0),
    ("learning_rate", "0.01", "", 16),
    ("weight_decay", "0.01", "", 16),
    ("epochs", "7", "", 16),
    ("batch_size", "7", "", 16),
    ("train_images", "7", "", 16),
    ("test_images", "7", "", 16),
    ("optimizer", "sgd", "", 16),
    ("augmentation", "crop_flip", "", 16),
    ("learning_rate_rule", "steps", "", 16),
    ("dataset", "synthetic", "", 16),
    ("precision", "bfloat16", "", 16),
    ("device", "cpu", "", 16),
]


@pytest.mark.parametrize(("key", "value", "part", "number"), CHANGES, ids=[row[0] for row in CHANGES])
def test_a_change_of_a_parameter_changes_the_cards_of_the_runs_it_decides(key, value, part, number, tmp_path):
    before, after = cards_of(tmp_path, PARAMS), cards_of(tmp_path, with_key(key, value))
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name in before if part in name}
    assert len(changed) == number


@pytest.mark.parametrize(
    ("key", "value", "added"),
    [
        ("seeds", "[1, 0]", 16),
        ("orderings", "[conv_relu, baseline, conv_relu_ic, ic_conv_relu, relu_ic_conv]", 4),
        ("presets", "{replication: {}, mine: {epochs: 3}}", 0),
    ],
)
def test_more_runs_leave_the_cards_of_those_there_were(key, value, added, tmp_path):
    before, after = cards_of(tmp_path, PARAMS), cards_of(tmp_path, with_key(key, value))
    assert before.items() <= after.items()
    assert len(after) == len(before) + added


def test_the_summary_names_the_runs_in_the_order_of_the_cards(tmp_path):
    study = study_of(tmp_path, PARAMS)
    assert study.summary()["runs"] == [card.name for card in study.cards()]


def test_the_summary_tells_how_the_runs_are_trained_and_nothing_that_none_of_them_uses(tmp_path):
    assert study_of(tmp_path, PARAMS).summary()["recipe"] == OF_THE_STUDY
    without = study_of(tmp_path, with_key("orderings", "[baseline, bn_relu_conv]")).summary()["recipe"]
    assert OF_THE_STUDY.items() - without.items() == {("dropout_p", 0.05)}
    other = study_of(tmp_path, with_key("preset", "original", with_key("optimizer", "sgd"))).summary()["recipe"]
    assert set(other) == set(RECIPE) and is_sound(other)


@pytest.mark.parametrize("orderings", ["[baseline, conv_relu_ic]", "[conv_relu_ic]"])
def test_a_plan_without_a_baseline_says_so(orderings, tmp_path, monkeypatch, capsys):
    (tmp_path / "params.yaml").write_text(with_key("orderings", orderings))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["plan"])
    stage.main()
    assert ("nothing to compare them with" in capsys.readouterr().out) == ("baseline" not in orderings)


# ---- bad parameters: (key, its value, what the message says besides the key)

ONE = "{block: basic, blocks_per_stage: 1}"
BAD = [
    ("dropout_p", "'1e-3'", "this is text: write 0.001"),
    ("weight_decay", "'1e-7'", "write 0.0000001"),
    ("epochs", "'1e2'", "write 100"),
    ("epochs", "'1e-2'", "and this is text"),
    ("epochs", "1e2", "100.0"),
    ("weight_decay", "'1e999999999'", "expected a number, and this is text"),
    ("weight_decay", "1e999999999", "finite"),
    ("dropout_p", "'0.05'", "write 0.05"),
    ("dropout_p", "five percent", "number"),
    ("dropout_p", "true", "number"),
    ("dropout_p", ".nan", "nan"),
    ("dropout_p", "1.0", "less than 1"),
    ("dropout_p", "1.5", "less than 1"),
    ("dropout_p", "-0.1", "greater than or equal to 0"),
    ("dropout_p", "", "None"),
    ("learning_rate", "0.0", "greater than 0"),
    ("learning_rate", ".inf", "finite"),
    ("learning_rate", "1.0e+39", "at most 1e38"),
    ("weight_decay", ".nan", "nan"),
    ("weight_decay", ".inf", "finite"),
    ("momentum", ".nan", "nan"),
    ("epochs", "0", "greater than or equal to 1"),
    ("epochs", "-1", "greater than or equal to 1"),
    ("epochs", "2.5", "integer"),
    ("epochs", "true", "integer"),
    ("epochs", "'100'", "write 100"),
    ("batch_size", "1", "2"),
    ("train_images", "50001", "50000"),
    ("test_images", "10001", "10000"),
    ("learning_rate_steps", "[120, 80]", "in increasing order"),
    ("learning_rate_steps", "[80, 80]", "in increasing order"),
    ("learning_rate_steps", "[0]", "greater than or equal to 1"),
    ("learning_rate_steps", "80", "list"),
    ("optimizer", "adamw", "'adam' or 'sgd'"),
    ("augmentation", "flip", "'none' or 'crop_flip'"),
    ("precision", "float16", "'float32' or 'bfloat16'"),
    ("learning_rate_rule", "cosine", "'constant' or 'steps'"),
    ("learning_rate_factor", "0", "greater than 0"),
    ("dataset", "cifar100", "'cifar10'"),
    ("device", "gpu", "'cuda'"),
    ("seeds", "[0, 0]", "once"),
    ("seeds", "[-1]", "greater than or equal to 0"),
    ("seeds", "[4294967296]", "less than 4294967296"),
    ("seeds", "[]", "at least 1"),
    ("seeds", "[true]", "integer"),
    ("seeds", "[0.0]", "integer"),
    ("seeds", "0", "list"),
    ("networks", "{}", "at least 1"),
    ("networks", f"{{../../etc: {ONE}}}", "lower-case letters"),
    ("networks", f"{{A: {ONE}}}", "lower-case letters"),
    ("networks", f"{{a-b: {ONE}}}", "lower-case letters"),
    ("networks", f"{{{'a' * 300}: {ONE}}}", "lower-case letters"),
    ("networks", f"{{110: {ONE}}}", "string"),
    ("networks", "[resnet110]", "dictionary"),
    ("networks", "{net: {block: basic}}", "net.blocks_per_stage is missing"),
    ("networks", "{net: {block: basic, blocks_per_stag: 1, blocks_per_stage: 1}}", "did you mean blocks_per_stage?"),
    ("networks", "{net: {block: wide, blocks_per_stage: 1}}", "net.block"),
    ("networks", "{net: {block: basic, blocks_per_stage: 0}}", "net.blocks_per_stage"),
    ("orderings", "[]", "at least 1"),
    ("orderings", "[relu_ic]", "conv once"),
    ("orderings", "[conv_conv]", "conv once"),
    ("orderings", "[relu_icc_conv]", "relu, ic, conv, bn, dropout"),
    ("orderings", "[Conv_ReLU]", "relu, ic, conv, bn, dropout"),
    ("orderings", "['']", "conv once"),
    ("orderings", "[baseline, baseline]", "once"),
    ("report", "{figure_dpi: 150, accuracy_from: 0.3, dpi: 1}", "unknown key report.dpi"),
    ("report", "{figure_dip: 1, figure_dpi: 150, accuracy_from: 0.3}", "did you mean figure_dpi?"),
    ("report", "{figure_dpi: 150}", "report.accuracy_from is missing"),
    ("report", "{figure_dpi: 150, accuracy_from: 1.0}", "report.accuracy_from"),
    ("preset", "rehersal", "did you mean rehearsal?"),
    ("preset", "2021", "replication, original, rehearsal"),
    ("preset", "", "replication, original, rehearsal"),
    ("presets", "[replication]", "mapping"),
    ("presets", "{replication: 3}", "presets.replication is not a mapping"),
    ("presets", "{replication: {epochs: 0}}", "presets.replication.epochs"),
    ("presets", "{replication: {epoch: 1}}", "did you mean epochs?"),
    ("presets", "{replication: {}, mine: {epochs: 0}}", "presets.mine.epochs"),
    ("presets", "{replication: {seeds: [1]}}", "at the top level"),
    ("presets", "{replication: {preset: original}}", "at the top level"),
    ("presets", f"{{replication: {{networks: {{resnet111: {ONE}}}}}}}", "did you mean resnet110?"),
]


def refusal(folder: Path, content: bytes) -> str:
    (folder / "params.yaml").write_bytes(content)
    with pytest.raises(BadInput) as caught:
        read_study(folder / "params.yaml")
    message = str(caught.value)
    assert message.startswith(str(folder / "params.yaml")) and message.isprintable()  # hence one line
    return message


@pytest.mark.parametrize(("key", "value", "words"), BAD, ids=[f"{row[0]}: {row[1]:.40}" for row in BAD])
def test_a_bad_value_is_refused_in_one_line_with_its_key_and_the_cure(key, value, words, tmp_path):
    message = refusal(tmp_path, with_key(key, value).encode())
    assert key in message and words in message


def test_the_data_sets_that_may_be_named_are_those_that_can_be_had():
    assert set(typing.get_args(Study.model_fields["dataset"].annotation)) == set(obtain.DATA_SETS)


@pytest.mark.parametrize(("train_images", "refused"), [("40000", False), ("40001", True), ("50000", True)])
def test_images_that_are_held_out_cannot_be_trained_on(train_images, refused, tmp_path):
    params = with_key("dataset", "cifar10_validation", with_key("train_images", train_images))
    if refused:
        message = refusal(tmp_path, params.encode())
        assert f"train_images: {train_images}: dataset cifar10_validation holds 10,000" in message
        assert "write 40000 or less (preset replication)" in message
    else:
        assert {card.dataset for card in study_of(tmp_path, params).cards()} == {"cifar10_validation"}


@pytest.mark.parametrize("key", [key for key in KEYS if key not in ("preset", "presets")])
def test_a_missing_key_is_refused_by_name(key, tmp_path):
    content = with_key(key, "").replace(f"{key}: \n", "")
    assert f"{key} is missing" in refusal(tmp_path, content.encode())


@pytest.mark.parametrize(
    ("line", "key", "nearest"),
    [
        ("droput_p: 0.1", "droput_p", "dropout_p"),
        ("epoch: 3", "epoch", "epochs"),
        ("network: {}", "network", "networks"),
        ("Seeds: [1]", "Seeds", "seeds"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(line, key, nearest, tmp_path):
    message = refusal(tmp_path, f"{PARAMS}\n{line}\n".encode())
    assert f"unknown key {key};" in message and f"did you mean {nearest}?" in message


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ResNet-8", "networks.ResNet-8: 'ResNet-8': a name has"),
        ("on", "networks.True: True: it should be a valid str"),
    ],
)
def test_a_networks_name_that_cannot_be_is_named_as_yaml_reads_it(name, words, tmp_path):
    text = with_key("networks", f"{{{name}: {{block: basic, blocks_per_stage: 1}}}}")
    assert f"params.yaml: {words}" in refusal(tmp_path, text.encode())


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (f"{PARAMS}\ndropout_p: 0.1\n", "dropout_p"),
        (f"{PARAMS}\npresets: {{}}\n", "presets"),
        (with_key("report", "{figure_dpi: 1, figure_dpi: 2}"), "figure_dpi"),
        (with_key("presets", "{mine: {epochs: 1}, mine: {epochs: 2}}"), "mine"),
    ],
    ids=["at the top", "a mapping", "inside a mapping", "a preset"],
)
def test_a_key_that_stands_twice_is_refused_by_name(text, key, tmp_path):
    assert f"the key {key} occurs twice" in refusal(tmp_path, text.encode())


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("preset", "[replication]", "replication, original, rehearsal"),
        ("preset", "{}", "replication, original, rehearsal"),
        ("seeds", "{[a]: 1}", "key"),
        ("networks", f'{{"a\\n": {ONE}}}', "lower-case letters"),
        ("orderings", f"[{'relu_' * 60}conv]", "ordering"),
        (
            "presets",
            "{replication: {report: {figure_dpi: 150, accuracy_from: 0.3, x: 1}}}",
            "unknown key presets.replication.report.x",
        ),
    ],
    ids=[
        "preset a list",
        "preset a mapping",
        "a list for a key",
        "two lines in a key",
        "a long ordering",
        "in a preset",
    ],
)
def test_a_bad_value_that_still_slips_through_is_refused_too(key, value, words, tmp_path):
    message = refusal(tmp_path, with_key(key, value).encode())
    assert words in message


FILES = {
    "an empty file": (b"", "mapping"),
    "only comments": (b"# nothing\n", "mapping"),
    "a list": (b"- preset: replication\n", "mapping"),
    "a text": (b"replication\n", "mapping"),
    "not UTF-8": (PARAMS.encode().replace(b"preset:", b"# \xe4\npreset:", 1), "utf-8"),
    "UTF-16": (PARAMS.encode("utf-16"), "utf-8"),
    "a tab": (PARAMS.replace("  figure_dpi", "\tfigure_dpi").encode(), "\\t"),
    "a control character": (PARAMS.encode() + b"\n# \x07\n", "#x0007"),
    "a bracket left open": (with_key("seeds", "[0").encode(), "line"),
    "two documents": (PARAMS.encode() + b"\n---\na: 1\n", "document"),
    "a Python object": (with_key("seeds", "!!python/object/apply:os.getcwd []").encode(), "python"),
    "an alias of nothing": (with_key("seeds", "*none").encode(), "none"),
    "an endless number": (with_key("epochs", "1" * 5000).encode(), "digits"),
    "a day that is not": (with_key("epochs", "2021-13-45").encode(), "month"),
    **{
        f"{tag} of {value}": (with_key("epochs", f"!!{tag} {value}").encode(), "readable")
        for tag, value in (("float", "''"), ("int", "''"), ("bool", "x"), ("timestamp", "x"), ("set", "[1]"))
    },
    "a conflict of git": (b"<<<<<<< HEAD\n" + PARAMS.encode(), "line"),
}


@pytest.mark.parametrize(("content", "words"), FILES.values(), ids=FILES.keys())
def test_a_file_that_is_no_mapping_of_parameters_is_refused_by_name_in_one_line(content, words, tmp_path):
    assert words in refusal(tmp_path, content)


def test_a_missing_file_is_refused_by_name_in_one_line(tmp_path):
    with pytest.raises(BadInput) as caught:
        read_study(tmp_path / "params.yaml")
    assert str(tmp_path / "params.yaml") in str(caught.value) and "\n" not in str(caught.value)


ODD = [
    "null",
    "true",
    "-1",
    "0",
    ".nan",
    "-.inf",
    "''",
    "x",
    "'a\\nb'",
    "[]",
    "{}",
    "{1: 2}",
    "2021-01-01",
    "!!binary aGk=",
]


@pytest.mark.parametrize("key", [key for key in KEYS if key != "preset"])
def test_whatever_a_key_is_set_to_the_answer_is_a_study_or_one_line(key, tmp_path):
    for value in ODD:
        (tmp_path / "params.yaml").write_text(with_key(key, value))
        try:
            cards = read_study(tmp_path / "params.yaml").cards()
        except BadInput as refused:
            assert key.removesuffix("s") in str(refused) and str(refused).isprintable(), value
        else:
            assert cards, value


@pytest.mark.parametrize("value", ["0.00001", "5e-05", "1e-3", "1.5e-4", "2.e-6", "1E-5", "+.5", "+.5e-3", "0.05", "1"])
def test_a_number_that_an_experiment_sets_is_read_as_dvc_reads_what_it_wrote(value, tmp_path):
    """DVC writes 0.00001 as 1e-05, which is text to YAML 1.1."""
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS, encoding="utf-8")
    apply_overrides(path, [f"weight_decay={value}"])
    assert (
        {card.weight_decay for card in read_study(path).cards()} == {load_yaml(path)["weight_decay"]} == {float(value)}
    )


# ---- the documents


def experiments() -> list[str]:
    """All that the documents tell to change by `-S`, a command or a part of one each."""
    pages = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
    text = "\n".join(page.read_text(encoding="utf-8").replace("\\\n", "") for page in pages)
    return list(dict.fromkeys(code for code in re.split("[`\n]", text) if " -S " in f" {code}"))


@pytest.mark.parametrize("code", experiments())
def test_an_experiment_that_the_documents_tell_of_can_be_planned(code, tmp_path):
    path, words = tmp_path / "params.yaml", shlex.split(code, comments=True)
    path.write_text(PARAMS, encoding="utf-8")
    apply_overrides(path, [value for option, value in pairwise(words) if option == "-S"])
    assert load_yaml(path) != yaml.safe_load(PARAMS)
    assert read_study(path).cards()


# ---- the stage


def plan(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    (folder / "params.yaml").write_text(text)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "stages.plan"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_stage_refuses_bad_parameters_by_status_2_and_one_line_and_makes_nothing(tmp_path):
    done = plan(tmp_path, with_key("dropout_p", "1.5"))
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"plan: params\.yaml: dropout_p: 1\.5: .+\n", done.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_the_stage_leaves_in_the_plans_folder_what_is_none_of_its(tmp_path):
    (tmp_path / "plan" / "old-baseline-0.json").mkdir(parents=True)
    for mine in ("notes.txt", "notes.json", "my-own-notes.json"):
        (tmp_path / "plan" / mine).write_text("somebody's")
    assert plan(tmp_path, PARAMS).returncode == 0
    left = {path.name for path in (tmp_path / "plan").iterdir()} - {"study.json"}
    assert left - {f"{name}.json" for name in cards_of(tmp_path, PARAMS)} == {
        "old-baseline-0.json",
        "notes.txt",
        "notes.json",
        "my-own-notes.json",
    }


def test_the_stage_plans_anew_and_leaves_a_plan_as_it_was_where_it_refuses(tmp_path):
    (tmp_path / "plan").mkdir()
    for leftover in ("old-baseline-0.json", ".study.json.1.tmp"):
        (tmp_path / "plan" / leftover).write_text("{}")
    assert plan(tmp_path, PARAMS).returncode == 0
    before = snapshot(tmp_path / "plan")
    cards = {f"{name}.json": content for name, content in cards_of(tmp_path, PARAMS).items()}
    assert before.items() - {("study.json", before["study.json"])} == cards.items()
    assert plan(tmp_path, with_key("seeds", "[0, 0]")).returncode == 2
    assert snapshot(tmp_path / "plan") == before
