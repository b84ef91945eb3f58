"""Contracts of the benchmark; none of them says how fast anything is."""

import copy
import dataclasses
import functools
import json
import multiprocessing
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from torch import nn

from benchmarks import __main__ as command
from benchmarks import ceilings, contenders, kernels, machine, race, reference, table
from benchmarks.contenders import DROPOUT_P, SIZES, Contender, Network, competitors, scaled
from benchmarks.data import source
from benchmarks.record import FOLDER, Ceilings, Circumstances, Race, Record, Result, Spread, Work
from benchmarks.stopwatch import PARTS, Stopwatch
from benchmarks.worker import Block, Team, Trainer
from lib import cifar10, synthetic
from lib.dropout import Dropout
from lib.errors import BadInput, StageError
from lib.ic import IC
from lib.report.commit import Commit
from lib.resnet import ResNet

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
TINY = Network("basic", 1, "conv_relu_ic")


def without_padding(text: str) -> str:
    return re.sub(" +", " ", text)


def result_of(contender: str, images_per_second: float, times_faster: dict[str, Spread]) -> Result:
    return Result(
        contender=contender,
        precision="float32",
        processes=2,
        threads=1,
        runs=1,
        steps_per_block=3,
        images_per_second=Spread(images_per_second, images_per_second - 1, images_per_second + 1),
        times_faster=times_faster,
        seconds_per_step={part: 0.01 for part in (*PARTS, "other")},
        data_share=0.0123,
        evaluated_per_second=1000.0,
        epoch_seconds=1020.0,
        evaluation_share=0.02,
        peak_bytes=1_500_000_000,
    )


PLAIN, OURS = result_of("plain loop", 50.0, {}), result_of("ours", 150.0, {"plain loop": Spread(3.0, 2.9, 3.1)})
CIRCUMSTANCES = Circumstances("synthetic", "abc of 2021-01-02", "3.11", "2.14", "0.29", 0.1, 1.9)
HELD = Race("resnet8", "conv_relu_ic", Work(1000, 2e11 / 300, 3e4), CIRCUMSTANCES, (PLAIN, OURS))
RECORD = Record("CPU, 2 cores", Ceilings({"float32": 2e11, "bfloat16": 4e11}, 3e10), (HELD,), (HELD,))


# ---- the reference is the same network


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize("ordering", ["baseline", "conv_relu_ic", "relu_dropout_conv"])
def test_the_reference_network_computes_what_ours_does_with_the_same_parameters(block, ordering):
    torch.manual_seed(1)
    for p, training in ((DROPOUT_P, False), (0.0, True)):
        ours = ResNet(block, 1, ordering, dropout_p=p)
        ours(images := torch.randn(8, 3, 32, 32))  # running statistics of their own
        plain = reference.plain(copy.deepcopy(ours)).train(training)
        with torch.no_grad():
            torch.testing.assert_close(plain(images), ours.train(training)(images), rtol=0, atol=0)
        assert all(torch.equal(*each) for each in zip(plain.parameters(), ours.parameters(), strict=True))


def test_the_reference_network_has_pytorchs_layers_only_and_as_much_dropout():
    ours = ResNet("basic", 2, "conv_relu_ic", dropout_p=DROPOUT_P)
    layers = sum(isinstance(each, IC) for each in ours.modules())
    modules = list(reference.plain(ours).modules())
    assert not any(isinstance(each, IC | Dropout) for each in modules)
    assert [each.p for each in modules if isinstance(each, nn.Dropout)] == [DROPOUT_P] * layers


def test_what_is_not_the_official_set_is_read_as_torchvision_reads_the_official_one():
    with source(quick=True) as images:
        trainer = Trainer(Contender("plain", "plain", "float32"), TINY, images, CPU)
    loop = trainer.loops[0]
    assert isinstance(loop, reference.PlainLoop)
    picture, label = loop.test_loader.dataset[0]
    assert picture.shape == (3, 32, 32) and picture.dtype == torch.float32 and isinstance(label, int)
    assert len(loop.train_loader.dataset) == 1000


def test_it_is_said_where_the_images_are_not_real(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(synthetic, "IMAGES_PER_FILE", 2)
    with source(quick=False) as images:
        assert images.dataset == "synthetic"
    assert "data/cifar10 is not there: on the synthetic set" in capsys.readouterr().out
    cifar10.write_stand_in(Path("data/cifar10"), "another", synthetic.generate(0, 2), synthetic.CLASSES)
    with source(quick=False) as images:
        assert (images.folder, images.dataset) == (Path("data/cifar10"), "another")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("commit", "told"),
    [
        (None, "unknown"),
        (Commit("0123456789", "2021-07-03", ()), "0123456 of 2021-07-03"),
        (Commit("0123456789", "2021-07-03", ("lib/ic.py",)), "0123456 of 2021-07-03 modified"),
    ],
)
def test_a_record_names_the_last_commit_of_the_code_and_whether_it_is_edited_since(commit, told, monkeypatch):
    """Not the last commit of all: one of a README leaves what was measured comparable."""
    asked = []
    monkeypatch.setattr(machine, "last_commit", lambda paths: asked.append(paths) or commit)
    assert machine.circumstances("cifar10").commit == told
    assert asked == [("lib", "stages", "tools", "benchmarks/*.py")]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than this machine has cores
def test_a_loader_beside_a_gpu_forks_its_workers_as_a_script_does():
    with source(quick=True) as images:
        data = cifar10.load(images.folder, "auto", images.train_images, images.test_images)
        train, test = reference.loaders(images.folder, data, torch.device("cuda"))
    for loader in (train, test):
        assert loader.num_workers == 4 and loader.multiprocessing_context.get_start_method() == "fork"


@pytest.mark.parametrize("loop", ["plain", "tuned"])
def test_a_reference_loop_stays_on_the_stream_that_a_script_is_on(loop, monkeypatch):
    monkeypatch.setattr("benchmarks.worker.in_turns", lambda _: pytest.fail("it was given a stream of its own"))
    with source(quick=True) as images:
        trainer = Trainer(Contender(loop, loop, "float32"), TINY, images, CPU)
    assert trainer.train(2, watched=False).images == 128


# ---- what competes


def test_the_networks_are_the_studys():
    study = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["networks"]
    assert {name: (each["block"], each["blocks_per_stage"]) for name, each in study.items()} == SIZES
    assert [Network(*size, "baseline").name for size in SIZES.values()] == list(SIZES)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_plain_loop_comes_first_and_has_all_cores(device):
    first, *others = competitors(torch.device(device))
    assert (first.loop, first.precision, first.processes, first.threads) == ("plain", "float32", 1, None)
    assert others[-1].loop == "engine"
    assert len({each.name for each in [first, *others]}) == len(others) + 1


@pytest.mark.parametrize("there", [True, False])
def test_the_tuned_contenders_train_in_bfloat16_only_where_that_is_quick(there, monkeypatch):
    monkeypatch.setattr(contenders, "convolves_in_bfloat16", lambda device: there)
    _, tuned, *ours = competitors(CPU)
    assert tuned.precision == ours[-1].precision == ("bfloat16" if there else "float32")
    assert [each.name for each in ours] == ["ours, float32", "ours, bfloat16"][: 1 + there]
    assert {each.precision for each in scaled(CPU)} == {tuned.precision}


@pytest.mark.parametrize("loop", ["plain", "tuned", "engine"])
def test_a_trainer_does_as_many_steps_as_told_and_looks_into_them_when_told(loop):
    with source(quick=True) as images:
        trainer = Trainer(Contender(loop, loop, "float32"), TINY, images, CPU)
    block = trainer.train(2, watched=True)
    assert block.images == 128 and block.seconds > 0
    assert {part: len(times) for part, times in block.parts.items()} == dict.fromkeys(PARTS, 2)
    assert trainer.train(1, watched=False).parts == {}
    assert trainer.evaluate(2).images == 128
    assert trainer.peak_bytes() > 0


def test_runs_of_one_process_take_their_turns_and_count_together():
    with source(quick=True) as images:
        trainer = Trainer(Contender("two", "engine", "bfloat16", runs=2), TINY, images, CPU)
    block = trainer.train(2, watched=True)
    assert block.images == 2 * 128
    assert len(block.parts["forward"]) == 4
    assert trainer.evaluate(1).images == 128


def test_the_stopwatch_gives_each_part_its_own_time(monkeypatch):
    seconds = iter([0.0, 1.0, 10.0, 12.0, 15.0, 19.0, 30.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(seconds))
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters())
    watch = Stopwatch(model, optimizer)
    watch.on = True
    for batch in watch.over([torch.ones(1, 1)]):
        model(batch).sum().backward()
        optimizer.step()
    assert watch.taken() == {"data": [1.0], "forward": [2.0], "backward": [3.0], "optimizer": [4.0]}
    assert watch.taken() == {}


# ---- statistics


def test_a_spread_is_the_median_the_least_and_the_most():
    assert Spread.of([3.0, 1.0, 2.0, 10.0]) == Spread(2.5, 1.0, 10.0)


def test_rates_of_processes_add_up_and_ratios_are_taken_block_by_block():
    assert race.rate([Block(100, 2.0, {}), Block(100, 4.0, {})]) == 75.0
    assert race.ratios([10.0, 30.0], [5.0, 10.0]) == [2.0, 3.0]


class Asked:
    """A team that notes what it is asked for, and answers as one process that looks into steps where it is told to."""

    def __init__(self, contender: Contender) -> None:
        self.contender, self.asked = contender, []

    def ask(self, method: str, *arguments) -> list[Block]:
        self.asked.append((method, *arguments))
        watched = arguments[-1] is True
        return [Block(64, 0.5, {part: [0.25] for part in PARTS} if watched else {})]


@pytest.mark.parametrize("captured", [False, True])
def test_a_step_that_is_being_captured_is_not_looked_into(captured):
    """Who looks waits for the device, which ends a capture."""
    entrant = race.Entrant(Asked(Contender("ours", "engine", "bfloat16", captured=captured)))
    entrant.warm_up()
    assert entrant.team.asked == [("train", 2, not captured), ("train", 1, False)]
    assert (entrant.epoch_start, entrant.step_seconds) == (0.0 if captured else 0.25, 0.5)


def test_a_block_takes_as_many_steps_as_its_seconds_hold_and_one_at_least():
    entrant = race.Entrant(Asked(Contender("ours", "engine", "bfloat16")))
    entrant.step_seconds = 0.5
    for seconds, steps in ((2.0, 4), (0.1, 1), (0.0, 1)):
        entrant.set_block(seconds)
        assert entrant.steps == steps


@pytest.mark.parametrize(
    ("left", "of", "expected"),
    [(10.0, 30.0, 2.0), (2.0, 30.0, race.LEAST_SECONDS), (-20.0, 30.0, race.LEAST_SECONDS), (-20.0, 0.0, 0.0)],
    ids=["an even part", "too short", "starting took it all", "a trial"],
)
def test_a_block_is_not_so_short_that_it_measures_its_own_start(left, of, expected):
    assert race.seconds_of_a_block(left, of, blocks=5) == expected


class Failing(Asked):
    """A team that fails when asked for the nth time, if there is an n for it."""

    fails: dict[str, int] = {}

    def __init__(self, contender: Contender, *_: object) -> None:
        super().__init__(contender)

    def ask(self, method: str, *arguments) -> list:
        if len(self.asked) + 1 == self.fails.get(self.contender.name):
            raise StageError(f"{self.contender.name}: no memory")
        answer = super().ask(method, *arguments or (False,))
        return {"threads": [1], "peak_bytes": [100]}.get(method, answer)


@pytest.mark.parametrize("nth", range(1, 9), ids="asked for the {}. time".format)
@pytest.mark.parametrize("name", ["plain loop", "tuned loop"])
def test_a_contender_that_fails_is_named_and_the_others_go_on(name, nth, monkeypatch, capsys):
    """Whenever: as it starts or warms up, in a block, or as it evaluates."""
    monkeypatch.setattr(race, "Team", Failing)
    monkeypatch.setattr(Failing, "fails", {name: nth})
    monkeypatch.setattr(contenders, "convolves_in_bfloat16", lambda device: False)
    with source(quick=True) as images:
        held = race.run(TINY, competitors(CPU), images, CPU, repeats=3, seconds=0)
    assert [each.contender for each in held.results] == [
        each for each in ("plain loop", "tuned loop", "ours, float32") if each != name
    ]
    assert capsys.readouterr().err.splitlines() == [f"benchmarks: {name}: no memory; the others go on"]


def test_when_the_time_is_over_races_are_left_out_and_what_was_held_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "FOLDER", tmp_path)
    monkeypatch.setattr(command, "elsewhere", lambda do: RECORD.ceilings)
    monkeypatch.setattr(machine, "device_name", lambda device: "a device")
    monkeypatch.setattr(race, "run", lambda network, *_, **__: dataclasses.replace(HELD, ordering=network.ordering))
    monkeypatch.setattr(synthetic, "IMAGES_PER_FILE", 2)
    monkeypatch.chdir(tmp_path)
    command.measure(command.study(["resnet110"], CPU), CPU, minutes=0, quick=False)
    assert [each.ordering for each in Record.read(tmp_path / "a-device.json").races] == ["conv_relu_ic"]
    assert "benchmarks: the time is over, 5 races not held" in capsys.readouterr().err


def test_parts_of_a_step_are_medians_and_what_is_left_is_other():
    parts = {"data": [1.0, 1.0], "forward": [2.0, 2.0], "backward": [3.0, 5.0], "optimizer": [0.5, 0.5]}
    found = race.parts_of_a_step([Block(128, 17.0, parts)])
    assert found == {"data": 1.0, "forward": 2.0, "backward": 4.0, "optimizer": 0.5, "other": 1.0}
    assert race.parts_of_a_step([]) == {}


def test_work_is_counted_by_hand_for_a_network_without_blocks_to_speak_of():
    counted = ceilings.work(Network("basic", 1, "baseline"))
    outputs = 3 * 16 * 32 * 32 + (2 + 1) * 32 * 16 * 16 + (2 + 1) * 64 * 8 * 8
    assert counted.convolution_outputs_per_image == outputs
    forward = 2 * 32 * 32 * 9 * 16 * (3 + 2 * 16)  # stem, first stage
    forward += 2 * 16 * 16 * 32 * (9 * 16 + 9 * 32 + 16) + 2 * 8 * 8 * 64 * (9 * 32 + 9 * 64 + 32) + 2 * 64 * 10
    # Backward computes each product twice, for inputs and weights; of the images no gradient is wanted.
    assert counted.flop_per_image == 3 * forward - 2 * 32 * 32 * 9 * 16 * 3


def test_the_share_of_the_roofline_is_that_of_the_nearer_ceiling():
    """1e6 FLOP and 8 x 1000 numbers of 4 or 2 bytes an image; 5e3 and 1e4 products, 1e3 copies a second at most."""
    work = Work(parameters=1, flop_per_image=1e6, convolution_outputs_per_image=1000)
    found = Ceilings({"float32": 5e9, "bfloat16": 1e10}, 3.2e7)
    assert found.share(work, "float32", 500) == 0.5  # copying: 1000 images a second, multiplying: 5000
    assert found.share(work, "bfloat16", 500) == 0.25
    assert dataclasses.replace(found, copied_bytes_per_second=1e12).share(work, "bfloat16", 500) == 0.05


# ---- the record and the README


def test_a_record_is_read_as_it_was_written(tmp_path):
    RECORD.write(tmp_path / "record.json")
    assert Record.read(tmp_path / "record.json") == RECORD


@pytest.mark.parametrize("damage", ["missing", "unknown", "deep"])
def test_what_is_not_a_record_is_refused(damage, tmp_path):
    entry = dataclasses.asdict(RECORD)
    if damage == "missing":
        del entry["ceilings"]
    elif damage == "unknown":
        entry["colour"] = "red"
    else:
        del entry["races"][0]["results"][1]["peak_bytes"]
    (tmp_path / "record.json").write_text(json.dumps(entry))
    with pytest.raises(BadInput, match="delete it and run `make benchmark`"):
        Record.read(tmp_path / "record.json")


def test_a_race_takes_the_place_of_an_older_one_over_the_same_network():
    newer, other = dataclasses.replace(HELD, results=(PLAIN,)), dataclasses.replace(HELD, ordering="baseline")
    assert RECORD.with_races([newer, other], []).races == (newer, other)


def test_a_record_that_is_added_to_keeps_the_highest_ceilings():
    """A busy day's would make every older race seem nearer to the roofline than it was."""
    rates = RECORD.ceilings.flop_per_second
    slower = Ceilings({name: rate / 2 for name, rate in rates.items()} | {"float16": 1.0}, 1e30)
    again = dataclasses.replace(RECORD, ceilings=slower, races=(), scale=()).added_to(RECORD)
    assert again == dataclasses.replace(RECORD, ceilings=Ceilings(rates | {"float16": 1.0}, 1e30))


def test_the_tables_hold_rates_ratios_parts_and_memory():
    text = table.tables([RECORD])
    rate_row = "| resnet8 | conv_relu_ic | 50 (49–51) | 150 (149–151) | 3 (2.9–3.1) | 50% |"
    part_row = "| resnet8 | conv_relu_ic | ours | 10.0 | 10.0 | 10.0 | 10.0 | 10.0 | 1.23% | 1,020 s | 2.0% | 1.50 GB |"
    scale_row = "| resnet8 | 2 | 1,020 s | 510 s | 1.50 GB |"
    lines = without_padding(text).splitlines()
    assert rate_row in lines and part_row in lines and scale_row in lines
    assert "load 0.1 to 1.9" in text and "commit abc of 2021-01-02" in text


def test_a_contender_that_failed_and_a_step_that_nothing_looks_into_are_dashes():
    blind = dataclasses.replace(OURS, seconds_per_step=None, data_share=None)
    alone = dataclasses.replace(HELD, ordering="baseline", results=(dataclasses.replace(blind, times_faster={}),))
    text = without_padding(table.tables([RECORD.with_races([alone], [])]))
    assert "| resnet8 | baseline | – | 150 (149–151) | – | 50% |" in text
    assert "| resnet8 | baseline | ours | – | – | – | – | – | – | 1,020 s |" in text


def test_tables_are_put_between_the_comments_and_only_there():
    page = Path("docs", "speed.md")
    text = f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n"
    filled = table.filled(text, "new\n", page)
    assert filled == f"before\n{table.BEGIN}\nnew\n{table.END}\nafter\n"
    assert table.filled(filled, "new\n", page) == filled
    with pytest.raises(BadInput, match="speed.md has no place"):
        table.filled("no comments", "new\n", page)


def test_the_pages_hold_the_tables_of_the_records():
    for page, middle in table.pages().items():
        text = page.read_text(encoding="utf-8")
        assert table.filled(text, middle, page) == text, "run `python -m benchmarks.table`"


def test_the_overview_of_a_device_is_how_the_engine_compares():
    alone = dataclasses.replace(HELD, ordering="baseline", results=(PLAIN,))
    for races, row in (((HELD,), "| resnet8 | conv_relu_ic | 150 (149–151) | 3 (2.9–3.1) |"), ((alone,), "50 (49–51)")):
        text = without_padding(table.overview(dataclasses.replace(RECORD, races=races)))
        assert row in text and "Ceilings" not in text


def test_a_devices_name_is_a_files():
    assert machine.slug("CPU, 2 cores, AMD EPYC, AVX512") == "cpu-2-cores-amd-epyc-avx512"


# ---- the whole


@pytest.mark.slow
def test_a_quick_benchmark_holds_a_race_and_records_nothing(monkeypatch, capsys):
    """Of each kind of race two contenders at most: each is processes of its own, which take seconds to start."""
    before = set(FOLDER.glob("*"))
    monkeypatch.setattr(command, "competitors", lambda device: competitors(device)[:: len(competitors(device)) - 1])
    monkeypatch.setattr(command, "scaled", lambda device: scaled(device)[:1])
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--quick"])
    command.main()
    out = capsys.readouterr().out
    assert "| resnet8 | conv_relu_ic |" in out and "Ceilings measured there" in out
    assert "plain loop" in out and competitors(CPU)[-1].name in out
    assert set(FOLDER.glob("*")) == before


def test_a_process_that_is_killed_is_told_of_in_one_line():
    """As where memory runs out."""
    with pytest.raises(StageError, match="was killed"):
        command.elsewhere(functools.partial(os._exit, 9))


def test_where_one_of_a_teams_processes_has_ended_the_others_end_too():
    """They would go on training while the others race."""
    team = Team.__new__(Team)
    ours, theirs = multiprocessing.Pipe()
    theirs.close()
    ended = []
    team.contender, team.connections = SimpleNamespace(name="ours"), [ours]
    team.processes = [SimpleNamespace(terminate=lambda: ended.append("terminated"))]
    with pytest.raises(StageError, match="a process of ours has ended"):
        team.ask("threads")
    assert ended == ["terminated"]


@pytest.mark.parametrize("minutes", ["nan", "inf", "-5", "0", "many"])
def test_a_time_that_cannot_be_is_refused_before_anything_is_measured(minutes, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--minutes", minutes])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2 and "--minutes" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_kernels_are_measured_on_a_gpu_alone(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["kernels"])
    with pytest.raises(SystemExit) as ended:
        kernels.main()
    assert ended.value.code == 2
    assert capsys.readouterr() == ("", "benchmarks: kernels are measured on a GPU, and PyTorch sees none here\n")


def test_the_reference_loops_have_none_of_our_kernels_even_for_a_baseline():
    network = ResNet("basic", 1, "baseline")
    assert network.fuses and not reference.plain(network).fuses
