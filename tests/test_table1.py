import dataclasses
import io

import pandas as pd
import pytest
from runs import NETWORKS, ORDERINGS, all_runs, arm_of, run_of, run_with, with_facts

from lib import paper, table1


def test_table_has_the_papers_rows_and_our_numbers_beside_its():
    table = table1.rows(all_runs())
    assert [(row.model, row.depth, row.layers) for row in table[:4]] == [
        ("ResNet", 110, "2x{ReLU-IC-Conv2D}"),
        ("ResNet", 110, "2x{IC-Conv2D-ReLU}"),
        ("ResNet", 110, "2x{Conv2D-ReLU-IC}"),
        ("ResNet", 110, "Baseline"),
    ]
    assert table[-2].layers == "3x{Conv2D-ReLU-IC}" and table[-2].model == "ResNet-B"
    assert len(table) == 16
    assert [row.paper for row in table[:4]] == [0.8226, 0.8429, 0.8449, 0.6454]
    assert table[3].to_paper == pytest.approx(0.56 - 0.6454)


def test_paper_has_sixteen_numbers_as_printed():
    numbers = [value for row in paper.TABLE_1.values() for value in row.values()]
    assert len(numbers) == 16
    assert sum(numbers) == pytest.approx(13.1077)
    for row in paper.TABLE_1.values():  # as each row of the paper ranks
        ic = [row[ordering] for ordering in ("relu_ic_conv", "ic_conv_relu", "conv_relu_ic")]
        assert ic == sorted(ic)
    others = [row for network, row in paper.TABLE_1.items() if network != ("basic", 110)]
    beside = [round(value - row["baseline"], 4) for row in others for name, value in row.items() if name != "baseline"]
    assert (min(beside), max(beside), sum(each < 0 for each in beside)) == (-0.0107, 0.0244, 2)


def test_the_paper_is_no_yardstick_for_other_data_or_other_depths():
    assert table1.rows([run_of("resnet110", "baseline", dataset="synthetic")])[0].paper is None
    shallow = with_facts(run_of("resnet110", "baseline"), depth=8)
    assert table1.rows([shallow])[0].paper is None


def test_an_unfinished_run_has_no_accuracy_at_the_end_of_training():
    run = run_of("resnet110", "baseline")
    assert table1.rows([dataclasses.replace(run, history=run.history[:2])])[0].accuracy.mean is None


def test_seeds_are_averaged():
    runs = [run_of("resnet110", "baseline", seed, accuracy=0.4 + 0.1 * seed) for seed in (0, 1)]
    assert table1.rows(runs)[0].accuracy.mean == pytest.approx(0.45)


def a_study(last, epochs=3):
    """Two networks' arms, each a list of its seeds' accuracies."""
    return [run for (network, ordering), each in last.items() for run in arm_of(each, network, ordering, epochs=epochs)]


# Differences of conv_relu_ic: 0.020, 0.021, 0.019, 0.020, 0.021: mean 0.0202, sd sqrt(2.8e-6 / 4) = 0.00083666, of the
# mean 0.00037417, t = 53.99 at 4 degrees of freedom, t(0.975, 4) = 2.776445; of ic_conv_relu the other way round.
CLEAR = {
    ("resnet110", "conv_relu_ic"): [0.820, 0.831, 0.809, 0.850, 0.801],
    ("resnet110", "ic_conv_relu"): [0.780, 0.789, 0.771, 0.810, 0.759],
    ("resnet110", "relu_ic_conv"): [0.801, 0.808, 0.791, 0.829, 0.781],
    ("resnet110", "baseline"): [0.800, 0.810, 0.790, 0.830, 0.780],
    ("resnetb110", "conv_relu_ic"): [0.70, 0.71, 0.72, 0.71, 0.70],
}


@pytest.fixture
def clear():
    return table1.rows(a_study(CLEAR))


def test_mean_standard_deviation_and_n_are_over_seeds(clear):
    texts = table1.frame(clear, "cifar10")
    assert texts["CIFAR10"][3] == "0.8020 ± 0.0192"  # sd: sqrt((4 + 64 + 144 + 784 + 484) / 4) thousandths
    assert set(texts["n"]) == {"5"}


def test_differences_intervals_wins_and_p_are_those_of_the_hand(clear):
    texts = table1.frame(clear, "cifar10")
    assert list(texts["Difference to baseline"]) == ["+0.0202", "-0.0202", "+0.0000", "", ""]
    assert texts["95 % interval"][0] == "[+0.0192, +0.0212]"
    assert list(texts["Wins"]) == ["5/5", "0/5", "3/5", "", ""]
    assert texts["Holm p"][0] == "<0.0001"
    assert clear[0].to_baseline.high == pytest.approx(0.0202 + 2.776445 * 0.00037417, abs=1e-7)
    assert clear[0].to_baseline.holm_p == pytest.approx(3 * clear[0].to_baseline.p)


def test_bold_is_what_stands_after_correction_a_loss_like_a_win(clear):
    text = table1.to_markdown(clear, "cifar10", "Caption")
    assert text.count("**") == 4
    assert "**+0.0202**" in text and "**-0.0202**" in text
    assert "3 comparisons" in text


def test_the_markdown_tables_are_aligned_well_formed_and_narrow_enough_for_a_terminal(clear):
    blocks = table1.to_markdown(clear, "cifar10", "Caption").split("\n\n")
    tables = [block.rstrip("\n").split("\n") for block in blocks if block.startswith("|")]
    assert [len(lines) for lines in tables] == [2 + 5, 2 + 3]
    for lines in tables:
        assert len({len(line) for line in lines}) == 1 and len(lines[0]) <= 120
        assert len({line.count("|") for line in lines}) == 1
        assert all(set(cell.strip()) <= set("-:") and "-" in cell for cell in lines[1].strip("|").split("|"))


def test_the_csv_holds_every_number_in_a_column_of_its_own(clear):
    read = pd.read_csv(io.StringIO(table1.to_csv(clear, "cifar10")))
    numbers = read.drop(columns=["Model", "Layers in Residual Unit"])
    assert all(kind.kind in "if" for kind in numbers.dtypes)
    assert read["Difference to baseline"][0] == pytest.approx(0.0202)
    assert read["Interval low"][0] == pytest.approx(clear[0].to_baseline.low, abs=1e-6)
    assert read["Holm p"][1] == pytest.approx(clear[1].to_baseline.holm_p, rel=1e-5)
    assert list(read["Pairs"][:3]) == [5, 5, 5] and read["Wins"][0] == 5
    assert read.loc[3:, "Difference to baseline":"Holm p"].isna().all(axis=None)


def test_a_table_of_one_seed_says_that_it_supports_no_claim_and_prints_no_spread():
    text = table1.to_markdown(table1.rows(all_runs()), "cifar10", "Caption")
    assert "supports no claim" in text
    assert "±" not in text and "[" not in text and "**" not in text and "Wins" not in text


def test_two_seeds_make_a_table_with_spread_and_no_longer_say_so():
    runs = [run for seed in (0, 1) for run in all_runs(seed=seed)]
    text = table1.to_markdown(table1.rows(runs), "cifar10", "Caption")
    assert "supports no claim" not in text and "±" in text and "12 comparisons" in text


def test_equal_differences_show_no_interval_and_are_not_bold():
    runs = [run for seed in (0, 1, 2) for run in all_runs(seed=seed)]  # the same accuracies at every seed
    table = table1.rows(runs)
    texts = table1.frame(table, "cifar10")
    assert texts["CIFAR10"][0] == "0.5000 ± 0.0000"
    assert (texts["Difference to baseline"][0], texts["95 % interval"][0], texts["Holm p"][0]) == ("-0.0600", "", "")
    assert texts["Wins"][0] == "0/3"
    assert "**" not in table1.to_markdown(table, "cifar10", "Caption")


@pytest.mark.parametrize("ordering", ORDERINGS)
def test_a_study_without_anything_to_compare_supports_no_claim(ordering):
    runs = [run for network in NETWORKS for run in arm_of([0.5, 0.6], network, ordering)]
    text = table1.to_markdown(table1.rows(runs), "cifar10", "Caption")
    assert "supports no claim" in text and "0.5500 ± 0.0707" in text and "Wins" not in text


@pytest.mark.parametrize("seeds", [(0,), (2, 3)], ids=["one in common", "none in common"])
def test_two_seeds_of_which_the_baseline_has_not_both_support_no_claim(seeds):
    runs = [*arm_of([0.5, 0.6], ordering="conv_relu_ic"), *(run_of("resnet110", "baseline", seed) for seed in seeds)]
    text = table1.to_markdown(table1.rows(runs), "cifar10", "Caption")
    assert "supports no claim" in text and "Wins" not in text


def test_seeds_that_only_one_arm_has_do_not_enter_a_comparison_and_n_shows_it():
    runs = [*arm_of([0.5, 0.6, 0.7], ordering="conv_relu_ic"), *arm_of([0.4, 0.45])]
    row = table1.rows(runs)[0]
    assert (row.accuracy.n, row.to_baseline.n) == (3, 2)
    assert row.to_baseline.mean == pytest.approx((0.1 + 0.15) / 2)
    assert table1.frame([row], "cifar10")["Wins"][0] == "2/2"


def test_an_unfinished_run_enters_neither_mean_nor_comparison():
    runs = [*arm_of([0.5, 0.6], ordering="conv_relu_ic"), *arm_of([0.4, 0.45])]
    runs.append(run_with([0.9], ordering="conv_relu_ic", seed=2, epochs=3))
    assert table1.rows(runs) == table1.rows(runs[:-1])


def test_a_table_without_a_finished_run_is_all_dashes():
    table = table1.rows([run_with([0.3], epochs=3), run_with([0.3], ordering="conv_relu_ic", epochs=3)])
    texts = table1.frame(table, "cifar10")
    assert list(texts["n"]) == ["0", "0"] and set(texts["CIFAR10"]) == set(texts["Wins"]) == {""}
    assert "supports no claim" in table1.to_markdown(table, "cifar10", "Caption")


def test_a_comparison_that_is_still_to_come_counts_in_the_correction():
    runs = [*arm_of([0.52, 0.63, 0.71], ordering="conv_relu_ic"), *arm_of([0.5, 0.6, 0.7])]
    alone = table1.rows(runs)[0].to_baseline
    with_another = table1.rows([*runs, run_of("resnet110", "ic_conv_relu")])[0].to_baseline
    assert with_another.holm_p == pytest.approx(2 * alone.holm_p)
