"""Files that nobody thought of: what the stages read is mutated at random, and either refused or truly valid.

Every day the same few cases of each property; FUZZ_CASES=20000 tries so many others of each (`-s` prints the count).
"""

import collections
import contextlib
import copy
import dataclasses
import hashlib
import io
import json
import math
import os
import pickle
import re
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from dvc.utils.serialize import load_yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from lib import figure4, obtain
from lib.card import RunCard, is_recipe
from lib.checkpoint import Checkpoints, Snapshot, read_checkpoint
from lib.errors import BadInput
from lib.files import canonical_json
from lib.machine.device import Circumstances
from lib.metrics import EpochRecord, RunFacts, RunMetrics, read_metrics, write_metrics
from lib.plan import read_study
from lib.recipe import OF_THE_STUDY
from lib.report import claims_figure, drawing
from lib.report.page import Page
from stages import download, report
from tests.making import CARD, IC_CARD

CASES = int(os.environ.get("FUZZ_CASES", "0"))
COUNTS: collections.Counter[str] = collections.Counter()


def cases(everyday: int) -> settings:
    """How often a property is tried: the same cases each time, unless more are asked for."""
    return settings(
        max_examples=CASES or everyday,
        derandomize=not CASES,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One for all cases; each of them writes its file anew."""
    yield tmp_path_factory.mktemp("fuzz")
    tried, accepted = ({name.split(":")[0] for name in COUNTS if name.endswith(end)} for end in ("in all", "accepted"))
    print("\n" + "\n".join(f"{count:8,} {name}" for name, count in sorted(COUNTS.items())))
    print(f"{sum(number for name, number in COUNTS.items() if name.endswith(' in all')):8,} cases")
    assert accepted == tried, "where nothing is accepted, nothing is said of what is"


def answer(kind: str, read: Callable[[], Any], names: str) -> Any:
    """What a reader makes of a case, or None where it refuses it as it should: one line that names the file."""
    COUNTS[f"{kind}: in all"] += 1
    try:
        result = read()
    except BadInput as refusal:
        assert names in str(refusal)
        assert str(refusal).isprintable(), "one line, and nothing that a terminal would obey"
        return None
    COUNTS[f"{kind}: accepted"] += 1
    return result


# ---- mutations

NUMBERS = [0, 1, -1, 2, 10, 63, 2**31, 2**32 - 1, 2**32, 2**63, 10**30, 10**400, -(10**400)]
FLOATS = [0.0, -0.0, 0.05, 1.0, 1.5, -0.1, 5e-324, 1e308, -1e308, math.nan, math.inf, -math.inf]
TEXTS = ["", " ", "0.05", "1e-3", "true", "auto", "cifar10", "../../etc/x", "a\nb", "a\0b", "\x1b[2J", "\ud800", "-rf"]
SCALARS = (
    st.none()
    | st.booleans()
    | st.sampled_from(NUMBERS)
    | st.integers()
    | st.sampled_from(FLOATS)
    | st.floats()
    | st.sampled_from(TEXTS)
    | st.text(max_size=8)
)
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(TEXTS) | st.text(max_size=4), inner),
    max_leaves=5,
)


NUDGES: list[Callable[[Any], Any]] = [lambda x: float(str(x)), str, lambda x: -x, lambda x: x + 1, lambda x: x * 1000]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a value with each of its keys."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key])


@st.composite
def mutated(draw: DrawFn, original: Any, junk: SearchStrategy[Any] = JUNK) -> Any:
    """A structure with one to three places changed: another value, a key that is gone or mistyped, a nesting."""
    value = copy.deepcopy(original)
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(value))
        if not found or draw(st.integers(0, 40)) == 0:
            return draw(junk)
        place, key = found[draw(st.integers(0, len(found) - 1))]
        change = draw(st.sampled_from(["replace", "replace", "nudge", "delete", "rename", "nest", "swap", "add"]))
        if change == "replace":
            place[key] = draw(junk)
        elif change == "nudge" and type(place[key]) in (int, float):
            place[key] = draw(st.sampled_from(NUDGES))(place[key])
        elif change == "delete":
            del place[key]
        elif change == "rename" and isinstance(place, dict):
            place[draw(st.sampled_from([f"{key}s", str(key)[:-1], str(key).upper()]))] = place.pop(key)
        elif change == "nest":
            place[key] = draw(st.sampled_from([lambda x: [x], lambda x: {"x": x}, lambda x: [x, x]]))(place[key])
        elif change == "swap":
            other, its = found[draw(st.integers(0, len(found) - 1))]
            if its in other if isinstance(other, dict) else its < len(other):
                place[key] = copy.deepcopy(other[its])
        elif isinstance(place, dict):
            place[draw(st.sampled_from(TEXTS))] = draw(junk)
        else:
            place.append(draw(junk))
    return value


@st.composite
def damaged(draw: DrawFn, original: bytes) -> bytes:
    """Bytes with a bit flipped, a stretch lost, doubled, zeroed or replaced, cut short, or gone on with."""
    content = bytearray(original)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, max(0, len(content) - 1)))
        end = min(len(content), start + draw(st.sampled_from([1, 2, 8, 64, 4096])))
        change = draw(st.sampled_from(["flip", "flip", "zero", "random", "lose", "double", "cut", "append"]))
        if change == "flip" and content:
            content[start] ^= 1 << draw(st.integers(0, 7))
        elif change == "zero":
            content[start:end] = bytes(end - start)
        elif change == "random":
            content[start:end] = draw(st.binary(max_size=16))
        elif change == "lose":
            del content[start:end]
        elif change == "double":
            content[start:start] = content[start:end]
        elif change == "cut":
            del content[start:]
        else:
            content += draw(st.binary(max_size=16))
    return bytes(content)


def as_json(value: Any) -> bytes:
    """With NaN and lone surrogates where the value has them: a reader must expect them."""
    return json.dumps(value, indent=1).encode()


BELOW_1 = math.nextafter(1.0, 0.0)


def one_in(low: float, high: float, kind: type = float) -> Callable[[Any], bool]:
    """Whether a value is a number of that kind (1 is also a float, True is no number) from low up to high."""
    kinds = (int,) if kind is int else (int, float)
    return lambda value: type(value) in kinds and math.isfinite(value) and low <= value <= high


# ---- (a) params.yaml

PARAMS = (Path(__file__).parents[1] / "params.yaml").read_text()
RAW = (  # scalars that YAML 1.1 and 1.2, or two of its readers, may see with different eyes
    *("010", "08", "0o10", "0x1F", "0b11", "1_000", "1_0.5", "1__0", "+5", "-0", "5.", ".5", "1e3", "1e-3", "1.e3"),
    *("1.5e3", "1.5e+3", "12:30", "190:20:30.15", "on", "no", "y", "~", "", "null", "Null", "2021-01-01", ".NaN"),
    *("!!int 5", "!!float 1", "!!str 5", "!!int '0.5'", "!!float '1e-3'", "&a 1", "*a", "'0.05'", '"\\ud800"', '"\\n"'),
    *("[1, 010]", "[0x1, 1]", "{<<: {}}", "? a", "|\n  x", "> 5", "!x 5", "@x", "`x", "%x", "=", "<<", "{a: b, a: c}"),
    *("[010]", "[0o17]", "[1_0]", "[1:30]", "[+3]", "[0.0]", "[1e1]", "0.0_5", "0.000_1", "1_0_0", "1.", "00", "-.5"),
)


@st.composite
def edited(draw: DrawFn, text: str) -> str:
    """A text file as a hand in a hurry leaves it: a line's value, place, indentation or number of copies is another."""
    lines = text.splitlines()
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, len(lines) - 1))
        change = draw(st.sampled_from(["value", "value", "value", "item", "drop", "copy", "indent", "swap", "type"]))
        key, colon, _ = lines[at].partition(":")
        if change == "value" and colon:
            lines[at] = f"{key}: {draw(st.sampled_from(RAW) | st.text('0123456789._e+-:xobn ', max_size=7))}"
        elif change == "item" and lines[at].startswith("- "):
            lines[at] = f"- {draw(st.sampled_from(RAW) | st.text('0123456789._e+-:xobn', max_size=7))}"
        elif change == "drop":
            del lines[at]
            lines = lines or [""]
        elif change == "copy":
            lines.insert(draw(st.integers(0, len(lines))), lines[at])
        elif change == "indent":
            lines[at] = draw(st.sampled_from([" ", "  ", "\t", "- ", "# "])) + lines[at]
        elif change == "swap":
            other = draw(st.integers(0, len(lines) - 1))
            lines[at], lines[other] = lines[other], lines[at]
        else:
            column = draw(st.integers(0, len(lines[at])))
            typed = draw(st.sampled_from(list("0123456789abc:-#'\"[]{},&*!|>%@`\\ \t._")))
            lines[at] = lines[at][:column] + typed + lines[at][column + draw(st.integers(0, 1)) :]
    return "\n".join(lines) + "\n"


def dumped(value: Any) -> bytes:
    return yaml.safe_dump(value, allow_unicode=False, sort_keys=False).encode()


PARAMS_CASES = (
    edited(PARAMS).map(lambda text: text.encode(errors="surrogatepass"))
    | mutated(yaml.safe_load(PARAMS)).map(dumped)
    | damaged(PARAMS.encode())
    | st.text().map(lambda text: text.encode(errors="surrogatepass"))
    | st.binary()
)

CARD_RANGES: dict[str, Callable[[Any], bool]] = {
    "network": lambda value: re.fullmatch("[a-z][a-z0-9_]{0,47}", value) is not None,
    "block": lambda value: value in ("basic", "bottleneck"),
    "blocks_per_stage": one_in(1, 10**6, int),
    "ordering": lambda value: value in ("baseline", "baseline_ic") or value.split("_").count("conv") == 1,
    "dropout_p": one_in(0, BELOW_1),
    "seed": one_in(0, 2**32 - 1, int),
    "dataset": lambda value: value in obtain.DATA_SETS,
    "train_images": one_in(1, 50_000, int),
    "test_images": one_in(1, 10_000, int),
    "augmentation": lambda value: value in ("none", "crop_flip"),
    "precision": lambda value: value in ("float32", "bfloat16"),
    "device": lambda value: value in ("auto", "cpu", "cuda"),
    "epochs": one_in(1, 10**6, int),
    "batch_size": one_in(2, 32_767, int),
    "optimizer": lambda value: value in ("adam", "sgd"),
    "momentum": one_in(0, BELOW_1),
    "weight_decay": one_in(0, 1e308),
    "learning_rate": one_in(5e-324, 1e38),
    "learning_rate_rule": lambda value: value in ("constant", "steps"),
    "learning_rate_steps": lambda value: all(one_in(1, 10**6, int)(epoch) for epoch in value),
    "learning_rate_factor": one_in(5e-324, 1),  # 1e200 to the power of two drops is no float
}


def dvcs_cards(path: Path) -> dict[str, dict[str, Any]]:
    """What the runs should be by DVC's reading of params.yaml, which draws the stages from it; {} if it reads none."""
    params = load_yaml(path)
    chosen = params.get("presets", {}).get(params["preset"]) or {}
    networks = {**params["networks"], **chosen.get("networks", {})}
    flat = {**params, **chosen}
    return {
        f"{network}-{ordering}-{seed}": {**flat, **networks[network], "network": network}
        | {"ordering": ordering, "seed": seed, "learning_rate_steps": tuple(flat["learning_rate_steps"])}
        for network in params["networks"]
        for ordering in params["orderings"]
        for seed in params["seeds"]
    }


def with_value(key: str, value: str) -> bytes:
    """The parameters with another value in a key's line."""
    changed, times = re.subn(rf"^( *{key}:).*$", lambda found: f"{found[1]} {value}", PARAMS, count=1, flags=re.M)
    assert times == 1
    return changed.encode()


@cases(200)
@given(content=PARAMS_CASES)
@example(content=with_value("dropout_p", "1.0"))
@example(content=with_value("dropout_p", ".nan"))
@example(content=with_value("epochs", "010"))  # 8 to PyYAML, 10 to DVC
@example(content=with_value("epochs", "1:30"))  # 90 to PyYAML, a text to DVC
@example(content=with_value("blocks_per_stage", str(10**30)))
@example(content=with_value("learning_rate_factor", "1.0e+200"))
@example(content=with_value("preset", '"\\ud800"').replace(b"  replication:", b'  "\\ud800":'))
def test_parameters_are_refused_or_the_cards_are_in_range_and_what_dvc_reads(content: bytes, folder: Path) -> None:
    path = folder / "params.yaml"
    path.write_bytes(content)
    study = answer("params.yaml", lambda: read_study(path), str(path))
    if study is None:
        return
    cards = study.cards()
    wanted = dvcs_cards(path)
    assert [card.name for card in cards] == list(wanted)
    for card in cards:
        for key, value in dataclasses.asdict(card).items():
            if value is not None:
                assert CARD_RANGES[key](value), (key, value)
                assert value == wanted[card.name][key], key
                assert type(value) is not bool, key
        card.write(folder / "cards" / f"{card.name}.json")
        assert RunCard.read(folder / "cards" / f"{card.name}.json") == card
        break  # they differ in network, ordering and seed alone
    assert json.loads(canonical_json(study.summary()))["runs"] == list(wanted)
    study.preset.encode()  # it stands in the report's caption


# ---- (b) run cards

CARDS = (
    CARD,
    dataclasses.replace(
        dataclasses.replace(IC_CARD, optimizer="sgd", momentum=0.9),
        learning_rate_rule="steps",
        learning_rate_steps=(1, 2),
        learning_rate_factor=0.1,
    ),
)


def content_of(card: RunCard) -> dict[str, Any]:
    """A card's keys and values, by a way of its own."""
    return json.loads(json.dumps({key: value for key, value in vars(card).items() if value is not None}))


def sealed(content: Any) -> bytes:
    """With the right checksum, where there is one to be had."""
    if not isinstance(content, dict):
        return as_json(content)
    try:
        text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"
        return as_json(content | {"sha256": hashlib.sha256(text.encode()).hexdigest()})
    except ValueError:
        return as_json(content | {"sha256": "of NaN there is none"})


@cases(300)
@given(card=st.sampled_from(CARDS), data=st.data())
def test_a_card_that_is_not_as_it_was_written_is_refused(card: RunCard, data: st.DataObject, folder: Path) -> None:
    path = folder / f"{card.name}.json"
    card.write(path)
    whole = path.read_bytes()
    structural = mutated(json.loads(whole)).map(as_json)
    path.write_bytes(data.draw(damaged(whole) | structural | st.binary(max_size=64)))
    read = answer("card", lambda: RunCard.read(path), str(path))
    assert read is None or read == card  # white space, the order of keys


@cases(300)
@given(card=st.sampled_from(CARDS), data=st.data())
def test_a_card_with_a_right_checksum_is_refused_or_has_the_schemas_types(
    card: RunCard, data: st.DataObject, folder: Path
) -> None:
    content = data.draw(mutated(content_of(card)))
    path = folder / f"{card.name}.json"
    path.write_bytes(sealed(content))
    read = answer("card with checksum", lambda: RunCard.read(path), str(path))
    if read is not None:
        assert content_of(read) == {key: value for key, value in content.items() if value is not None}
        for key, example in content_of(CARDS[1]).items():
            value = vars(read)[key]
            number = one_in(-1.8e308, 1.8e308) if isinstance(example, float) else lambda each: type(each) is int
            if isinstance(example, list) and value is not None:
                assert type(value) is tuple and all(type(each) is int for each in value)
            elif isinstance(example, str | bool):
                assert type(value) is type(example)
            else:
                assert value is None or number(value)


# ---- (c) checkpoints

SNAPSHOT = Snapshot(
    history=(EpochRecord(1, 0.001, 2.1, 0.2, 2.0, 0.3), EpochRecord(2, 0.001, 1.9, 0.3, 1.8, 0.4)),
    model={"weight": torch.arange(6.0).reshape(2, 3), "norm.num_batches_tracked": torch.tensor(7)},
    optimizer={
        "state": {0: {"step": torch.tensor(2.0), "exp_avg": torch.full((2, 3), 0.5)}},
        "param_groups": [{"lr": 0.001, "betas": (0.9, 0.999), "params": [0], "maximize": False, "foreach": None}],
    },
    circumstances=(Circumstances("2.14.1", "cpu", "AVX2", 1), Circumstances("2.14.1", "NVIDIA H100")),
)


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same bit for bit, types and all."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    if dataclasses.is_dataclass(one):
        return same(vars(one), vars(other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return repr(one) == repr(other)


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> bytes:
    saved = Checkpoints(folder, "tiny", {})
    saved.save(SNAPSHOT)
    return saved.path(2).read_bytes()


FINGERPRINT = Checkpoints(Path(), "tiny", {}).fingerprint


def read_as_checkpoint(content: bytes, kind: str, folder: Path) -> Snapshot | None:
    path = folder / "epoch-0002.ckpt"
    path.write_bytes(content)
    return answer(kind, lambda: read_checkpoint(path, FINGERPRINT), str(path))


def with_header(body: bytes) -> bytes:
    return struct.pack(">8s32sQ", b"ICCKPT\x00\x01", hashlib.sha256(body).digest(), len(body)) + body


def test_the_checkpoint_that_is_mutated_is_a_good_one(checkpoint: bytes, folder: Path) -> None:
    assert same(read_as_checkpoint(checkpoint, "good checkpoint", folder), SNAPSHOT)
    assert with_header(checkpoint[48:]) == checkpoint


@cases(300)
@given(data=st.data())
def test_a_damaged_checkpoint_is_refused_or_what_was_written_bit_for_bit(
    data: st.DataObject, checkpoint: bytes, folder: Path
) -> None:
    header_only = damaged(checkpoint[:48]).map(lambda header: header + checkpoint[48:])
    read = read_as_checkpoint(data.draw(damaged(checkpoint) | header_only), "checkpoint", folder)
    assert read is None or same(read, SNAPSHOT)


def saved_by_torch(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


PLAIN = {"fingerprint": FINGERPRINT} | {
    "history": [dataclasses.asdict(each) for each in SNAPSHOT.history],
    "model": SNAPSHOT.model,
    "optimizer": SNAPSHOT.optimizer,
    "circumstances": [dataclasses.asdict(each) for each in SNAPSHOT.circumstances],
}
TENSORS = st.sampled_from([torch.zeros(0), torch.tensor(math.nan), torch.ones(2, 3), torch.tensor([1]).to(torch.int8)])


class Trap:
    """What no reader may run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("trapped",))


@cases(300)
@given(data=st.data())
def test_a_payload_with_a_right_checksum_is_refused_or_read_and_runs_nothing(
    data: st.DataObject, checkpoint: bytes, folder: Path
) -> None:
    payloads = (
        mutated(PLAIN, JUNK | TENSORS).map(saved_by_torch)
        | damaged(checkpoint[48:])
        | st.builds(lambda value: pickle.dumps(value), JUNK)
        | st.sampled_from([saved_by_torch(Trap()), saved_by_torch(PLAIN | {"optimizer": Trap()}), pickle.dumps(Trap())])
        | st.binary(max_size=64)
    )
    read = read_as_checkpoint(with_header(data.draw(payloads)), "payload", folder)
    assert not Path("trapped").exists()
    assert read is None or read.epoch == 2


# ---- (d) metrics

FACTS = RunFacts(
    *("resnet110", "basic", 110, "conv_relu_ic", 0, "synthetic", 50_000, 10_000, 3),
    *(OF_THE_STUDY, 1_731_674, "2.14.1", "cpu"),
)
HISTORY = (*SNAPSHOT.history, EpochRecord(3, 0.0001, 0.0, 1.0, 1.5, 1.0))
METRICS = {
    "test_accuracy": 1.0,
    "test_loss": 1.5,
    "run": [dataclasses.asdict(FACTS)],
    "history": [dataclasses.asdict(record) for record in HISTORY],
}


def text(value: Any) -> bool:
    """What may stand in a caption."""
    return type(value) is str and value != "" and value.isprintable()


RECORD_RANGES: dict[str, Callable[[Any], bool]] = {
    "epoch": one_in(1, math.inf, int),
    "learning_rate": one_in(0, 1.8e308),
    "train_loss": one_in(0, 1.8e308),
    "train_accuracy": one_in(0, 1),
    "test_loss": one_in(0, 1.8e308),
    "test_accuracy": one_in(0, 1),
}
FACT_RANGES: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("network", "ordering", "dataset", "torch", "device"), text),
    "block": lambda value: value in ("basic", "bottleneck"),
    **dict.fromkeys(("depth", "parameters"), one_in(0, math.inf, int)),
    **dict.fromkeys(("train_images", "test_images"), one_in(0, math.inf, int)),
    "epochs": one_in(1, math.inf, int),
    "recipe": is_recipe,
    "seed": one_in(0, math.inf, int),
}


def assert_valid(run: RunMetrics, content: Any) -> None:
    """A run's metrics are in range and what the file says."""
    assert all(FACT_RANGES[key](value) for key, value in vars(run.facts).items()), run.facts
    assert [record.epoch for record in run.history] == list(range(1, len(run.history) + 1))
    assert 1 <= len(run.history) <= run.facts.epochs
    assert all(RECORD_RANGES[key](value) for record in run.history for key, value in vars(record).items())
    assert content["history"] == [vars(record) for record in run.history]
    assert content["run"] == [vars(run.facts)]
    for key in ("test_accuracy", "test_loss"):
        assert type(content[key]) in (int, float), "DVC shows it"
        assert content[key] == vars(run.history[-1])[key]


@cases(400)
@given(data=st.data())
def test_metrics_are_refused_or_in_range_and_what_the_file_says(data: st.DataObject, folder: Path) -> None:
    path = folder / "resnet110-conv_relu_ic-0.json"
    write_metrics(path, FACTS, HISTORY)
    content = data.draw(mutated(METRICS).map(as_json) | damaged(path.read_bytes()) | st.binary(max_size=64))
    path.write_bytes(content)
    run = answer("metrics", lambda: read_metrics(path), str(path))
    if run is not None:
        assert_valid(run, json.loads(content))
        assert run.name == path.stem
        write_metrics(path, run.facts, run.history)
        assert read_metrics(path) == run


# ---- (e) plan/study.json, by the stages that read it

STUDY: dict[str, Any] = {
    "preset": "replication",
    "dataset": "auto",
    "epochs": 3,
    "train_images": 50000,
    "test_images": 10000,
    "report": {"figure_dpi": 60, "accuracy_from": 0.1},
    "recipe": OF_THE_STUDY,
    "networks": {"resnet110": {"block": "basic", "depth": 110}},
    "runs": ["resnet110-conv_relu_ic-0", "resnet110-baseline-0"],
}
STUDY_CASES = mutated(STUDY).map(as_json) | damaged(as_json(STUDY)) | st.binary(max_size=64)


@pytest.fixture
def workplace(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plan and the metrics of a run."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["stage"])
    write_metrics(Path("metrics/resnet110-conv_relu_ic-0.json"), FACTS, HISTORY)
    Path("plan").mkdir(exist_ok=True)
    return folder


def ended(stage: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> str | None:
    """The line a stage ends with where it refuses its input, or None where it does its work."""
    try:
        stage()
    except SystemExit as ending:
        assert ending.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        raise BadInput(line) from None
    assert capsys.readouterr().err == ""
    return "done"


@settings(cases(200), suppress_health_check=list(HealthCheck))
@given(content=STUDY_CASES)
@example(content=as_json(STUDY | {"runs": dict.fromkeys(STUDY["runs"])}))
@example(content=as_json(STUDY | {"runs": STUDY["runs"][:1] * 2}))
@example(content=as_json(STUDY | {"preset": "a\nb"}))
@example(content=as_json(STUDY | {"recipe": OF_THE_STUDY | {"precision": "bfloat16", "dropout_p": 0.1}}))
@example(content=as_json(STUDY | {"recipe": OF_THE_STUDY | {"learning_rate": 10**400}}))
def test_the_report_refuses_a_study_or_reports_what_it_says(
    content: bytes, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn: list[tuple[Any, ...]] = []  # drawing takes a second and is tested elsewhere
    monkeypatch.setattr(figure4, "draw", lambda *arguments: drawn.append(arguments))
    monkeypatch.setattr(claims_figure, "draw", lambda *_: None)
    monkeypatch.setattr(report, "last_commit", lambda _: None)
    pages: list[Page] = []
    monkeypatch.setattr(report, "to_html", lambda page: pages.append(page) or "a page")
    monkeypatch.setattr(drawing, "rendered", lambda figure, kind, dpi: drawn.append((kind, dpi)) or b"a figure")
    Path("plan/study.json").write_bytes(content)
    with contextlib.suppress(ValueError, LookupError, TypeError):  # no study at all
        study = json.loads(content)
        trained = {key: study[key] for key in ("train_images", "test_images", "recipe")}
        write_metrics(Path("metrics/resnet110-conv_relu_ic-0.json"), dataclasses.replace(FACTS, **trained), HISTORY)
    if answer("study, report", lambda: ended(report.main, capsys), "") is None:
        assert drawn == pages == []
        return
    study = json.loads(content)
    (runs, caption, accuracy_from), *rendered = drawn
    assert [run.name for run in runs] == ["resnet110-conv_relu_ic-0"]
    assert one_in(0, BELOW_1)(accuracy_from) and accuracy_from == study["report"]["accuracy_from"]
    assert all(one_in(50, 600, int)(dpi) and dpi == study["report"]["figure_dpi"] for _, dpi in rendered)
    assert runs[0].facts.epochs == study["epochs"]
    assert text(study["preset"]) and study["preset"] in caption and caption.isprintable()
    assert f"{study['train_images']:,}" in caption and type(study["train_images"]) is int
    (page,) = pages
    assert page.summary == caption and page.facts["Preset"] == study["preset"]
    assert f"{study['test_images']:,}" in page.facts["Data"] and type(study["test_images"]) is int
    recipe = study["recipe"]
    assert (", bfloat16," in caption) == (recipe["precision"] == "bfloat16")
    assert ("dropout p" in caption) == (recipe.get("dropout_p", 0.05) != 0.05)
    assert f"batches of {recipe['batch_size']}," in page.facts["Recipe"] and page.facts["Recipe"].isprintable()
    assert type(study["runs"]) is list
    assert f"1 of {len(set(study['runs']))} run" in caption and len(set(study["runs"])) == len(study["runs"])
    assert all(re.fullmatch(r"[a-z0-9_]+-[a-z0-9_]+-[0-9]+", run) for run in study["runs"])


@settings(cases(200), suppress_health_check=list(HealthCheck))
@given(content=STUDY_CASES)
def test_the_download_refuses_a_study_or_fetches_the_data_set_it_names(
    content: bytes, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted: list[str] = []
    monkeypatch.setattr(download.obtain, "obtain", lambda name, *_: wanted.append(name) or name)
    Path("plan/study.json").write_bytes(content)
    if answer("study, download", lambda: ended(download.main, capsys), "study.json") is None:
        assert wanted == []
    else:
        assert wanted == [json.loads(content)["dataset"]]
        assert wanted[0] in obtain.DATA_SETS
