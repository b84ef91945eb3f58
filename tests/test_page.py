import base64
import dataclasses
import hashlib
import json
import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from plotly.offline import get_plotlyjs

from lib import table1
from lib.report import look, page, sections
from lib.report.page import Table, to_html
from tests.pages import page_of, run_of, runs_of

VOID = {"meta", "link", "input", "br", "line"}
EVIL = "</script></style><img src=x onerror=alert(1)>\"'&{{ 7 * 7 }}"


class Document(HTMLParser):
    """The page as a browser's parser sees it: elements with their attributes and texts; tags must match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements = [], []
        self.feed(text)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag, attributes):
        assert len(dict(attributes)) == len(attributes), f"<{tag}> says something twice"
        self.elements.append({"tag": tag, "text": "", **dict(attributes)})
        if tag not in VOID:
            self.open.append(self.elements[-1])

    def handle_startendtag(self, tag, attributes):
        assert tag in VOID
        self.elements.append({"tag": tag, "text": "", **dict(attributes)})

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, text):
        for element in self.open:
            element["text"] += text

    def all(self, tag):
        return [element for element in self.elements if element["tag"] == tag]

    @property
    def figure(self):
        (data,) = [each for each in self.all("script") if each.get("type") == "application/json"]
        return json.loads(data["text"])


@pytest.fixture(scope="module")
def text():
    return to_html(page_of(runs_of()))


@pytest.fixture(scope="module")
def document(text):
    return Document(text)


@pytest.fixture(scope="module")
def five_seeds():
    return Document(to_html(page_of(runs_of(seeds=5))))


def test_it_is_one_file_of_at_most_five_megabytes_most_of_it_the_library(text):
    assert len(text.encode()) <= 5_000_000
    assert len(text.encode()) - len(get_plotlyjs().encode()) <= 100_000


def test_the_same_page_is_the_same_text(text):
    assert to_html(page_of(runs_of())) == text


def test_it_refers_to_nothing_outside(document):
    for element in document.elements:
        for name in ("src", "srcset", "action", "data", "poster", "background"):
            assert name not in element
        assert element.get("href", "#").startswith("#") or element["href"] == "data:,"
    (style,) = document.all("style")
    assert not re.search(r"url\(|@import", style["text"])


def test_its_policy_forbids_the_network_and_every_script_but_its_own_two(document):
    (policy,) = [each["content"] for each in document.all("meta") if "http-equiv" in each]
    sources = dict(directive.split(" ", 1) for directive in policy.split("; "))
    scripts = [each["text"].encode() for each in document.all("script") if "type" not in each]
    hashes = [base64.b64encode(hashlib.sha256(script).digest()).decode() for script in scripts]
    assert len(scripts) == 2
    assert sources["default-src"] == "'none'"
    assert sources["script-src"].split() == [f"'sha256-{each}'" for each in hashes]
    assert "http" not in policy and "*" not in policy and "'unsafe-eval'" not in policy
    assert not [name for element in document.elements for name in element if name.startswith("on")]


def test_every_run_is_in_it_epoch_by_epoch(five_seeds):
    found = {
        run["name"]: run["accuracy"]
        for panel in five_seeds.figure["panels"]
        for curve in panel["curves"]
        for run in curve["runs"]
    }
    runs = runs_of(seeds=5)
    assert len(runs) == 80
    assert found == {run.name: [record.test_accuracy for record in run.history] for run in runs}


def test_curves_are_means_over_seeds_with_their_standard_deviation(five_seeds):
    for panel in five_seeds.figure["panels"]:
        for curve in panel["curves"]:
            by_seed = pd.DataFrame([run["accuracy"] for run in curve["runs"]])
            assert curve["mean"] == pytest.approx(list(by_seed.mean()), abs=1e-6)
            assert curve["sd"] == pytest.approx(list(by_seed.std()), abs=1e-6)


def test_a_single_run_has_no_standard_deviation(document):
    curves = [curve for panel in document.figure["panels"] for curve in panel["curves"]]
    assert all(curve["mean"] == curve["runs"][0]["accuracy"] for curve in curves)
    assert all(set(curve["sd"]) == {None} for curve in curves)


def test_a_run_under_way_is_shown_but_not_averaged_with_finished_ones():
    runs = [run_of("resnet110", "baseline", seed) for seed in (0, 1)]
    runs[1] = dataclasses.replace(runs[1], history=runs[1].history[:5])
    shown = page_of(runs)
    (curve,) = shown.figure["panels"][0]["curves"]
    assert curve["mean"] == curve["runs"][0]["accuracy"]
    assert [len(run["accuracy"]) for run in curve["runs"]] == [12, 5]
    assert "resnet110-baseline-1 (5 of 12 epochs)" in shown.warnings[0]


def test_a_network_that_was_not_trained_in_an_ordering_has_an_empty_curve_there():
    shown = page_of([run_of("resnet110", "baseline"), run_of("resnet110", "conv_relu_ic"), run_of("small", "baseline")])
    (first, second), (third, none) = (panel["curves"] for panel in shown.figure["panels"])
    assert all(len(curve["mean"]) == 12 for curve in (first, second, third))
    assert none == {"mean": [], "sd": [], "runs": [], "paper": None}


def test_the_papers_values_are_there_for_its_own_networks_on_its_own_data_only(document):
    def papers(shown):
        return [curve["paper"] for panel in shown.figure["panels"] for curve in panel["curves"]]

    assert papers(document) == [row.paper for row in table1.rows(runs_of())]
    assert papers(document)[3] == 0.6454
    for dataset in ("synthetic", "cifar10_validation"):
        assert set(papers(page_of(runs_of(dataset=dataset)))) == {None}
    assert papers(page_of([run_of("small", "baseline")])) == [None]


def test_orderings_look_as_in_figure_4(document):
    swatches = [each["style"] for each in document.all("line")]
    assert len(swatches) == 4
    for swatch, ordering, expected in zip(swatches, document.figure["orderings"], look.looks(4), strict=True):
        assert (ordering["colour"], tuple(ordering["dashes"])) == (expected.colour, expected.dashes)
        assert f"light-dark({look.legible(expected.colour, page.BACKGROUND['light'])}, " in swatch


def test_seventy_orderings_would_look_different():
    assert len(set(look.looks(70))) == 70


def colours_of_the_style():
    declared = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", page._beside("page.css"))
    return {name: {"light": light, "dark": dark} for name, light, dark in declared} | {"background": page.BACKGROUND}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_texts_and_marks_stand_out_in_both_themes(theme):
    colours = {name: themes[theme] for name, themes in colours_of_the_style().items()}
    for ink, paper in [("text", "background"), ("quiet", "background"), ("link", "background"), ("note-text", "note")]:
        assert look.contrast(colours[ink], colours[paper]) >= 4.5, (ink, paper)
    for ink in ("text", "quiet"):
        assert look.contrast(colours[ink], colours["raised"]) >= 4.5, ink
    assert look.contrast(colours["control"], colours["background"]) >= 3
    for each in look.looks(10):
        assert look.contrast(look.legible(each.colour, colours["background"]), colours["background"]) >= 3


def test_contrast_is_that_of_wcag():
    assert look.contrast("#000000", "#ffffff") == pytest.approx(21)
    assert look.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # WCAG's best known near miss
    assert look.contrast("#123456", "#123456") == 1
    assert look.legible("#0173b2", "#ffffff") == "#0173b2", "what stands out is left as it is"
    with pytest.raises(ValueError, match="22"):
        look.legible("#0173b2", "#ffffff", 22)


def test_tables_say_which_cells_are_heads_of_what(five_seeds):
    assert {each.get("scope") for each in five_seeds.all("th")} == {"col", "row", "rowgroup"}
    captions = five_seeds.all("caption")
    assert len(captions) == len(five_seeds.all("table")) == 3 + 5
    assert all(caption["text"].strip() for caption in captions)


def test_names_and_labels_point_to_what_is_there(five_seeds):
    ids = [each["id"] for each in five_seeds.elements if "id" in each]
    assert len(ids) == len(set(ids))
    for element in five_seeds.elements:
        for name in ("aria-labelledby", "aria-describedby", "for"):
            assert set(element.get(name, "").split()) <= set(ids)
        if element.get("href", "#") != "#" and element["href"].startswith("#"):
            assert element["href"][1:] in ids
    assert [len(five_seeds.all(tag)) for tag in ("header", "nav", "main", "footer", "h1")] == [1] * 5


def test_table_1_is_the_reports(document, five_seeds):
    one, five = table1.frame(table1.rows(runs_of()), "cifar10"), table1.frame(table1.rows(runs_of(seeds=5)), "cifar10")
    cells = [each["text"] for each in document.all("td")]
    assert all(text in cells for text in one["CIFAR10"])
    heads = [each["text"] for each in document.all("th") if each["scope"] == "col"]
    assert "Paper" in heads and "Holm p" not in heads, "one seed: nothing to test"
    cells = [each["text"] for each in five_seeds.all("td")]
    for column in ("CIFAR10", "95 % interval", "Wins", "Holm p"):
        assert all((text or "–") in cells for text in five[column])
    supported = [row.to_baseline.supported for row in table1.rows(runs_of(seeds=5)) if row.to_baseline]
    assert any(supported)
    bold = [each["text"] for each in five_seeds.all("strong")]
    expected = [row.to_baseline.mean for row in table1.rows(runs_of(seeds=5)) if row.to_baseline][0]
    assert supported[0] == (f"{expected:+.4f}" in bold)


def test_no_column_is_for_the_papers_values_where_there_are_none():
    assert "Paper" not in sections.of_table1(table1.rows([run_of("small", "baseline")]), "cifar10").tables[0].frame
    other = sections.of_table1(table1.rows(runs_of(dataset="synthetic")), "synthetic")
    assert "Paper" not in other.tables[0].frame and sections.NOT_THE_PAPERS in other.notes


def test_how_to_read_the_tables_is_said(document, five_seeds):
    texts = [each["text"] for each in document.all("p")]
    assert table1.ONE_SEED in texts and sections.claims.ONE_SEED in texts
    assert sections.claims.COMPARED in [each["text"] for each in five_seeds.all("p")]


def test_what_rows_share_stands_once_for_all_of_them():
    frame = pd.DataFrame([["A", "x", "1", ""], ["A", "y", "2", "no"], ["B", "x", "", "-3"]], columns=list("klmn"))
    table = Table("c", frame, shared=1, bold={(1, "m")})
    assert [[row.head for row in group] for group in table.groups] == [["x", "y"], ["x"]]
    assert [group[0].shared for group in table.groups] == [["A"], ["B"]]
    assert [head.number for head in table.heads] == [False, False, True, False]
    assert [cell.text for row in table.groups[0] for cell in row.cells] == ["1", "–", "2", "no"]
    assert [cell.bold for row in table.groups[0] for cell in row.cells] == [False, False, True, False]


def test_a_name_cannot_break_out_of_the_page():
    """Every text comes from files: here all of them are as bad as they can be."""
    runs = [run_of(network, "baseline", torch=EVIL, device=EVIL, dataset=EVIL) for network in (EVIL, "small")]
    shown = page_of(runs, preset=EVIL, runs=[*(run.name for run in runs), EVIL])
    document = Document(to_html(shown))
    clean = Document(to_html(page_of([run_of(n, "baseline", dataset="x") for n in ("one", "small")], runs=["x"])))
    assert [each["tag"] for each in document.elements] == [each["tag"] for each in clean.elements]
    facts = [each["text"] for each in document.all("dd")]
    assert facts.count(EVIL) == 3, "preset, PyTorch, device: as they were"
    assert {run["name"] for run in document.figure["panels"][0]["curves"][0]["runs"]} == {f"{EVIL}-baseline-0"}


def test_what_is_lacking_is_said_first():
    runs = runs_of(dataset="synthetic")
    first, missing = page_of(runs, runs=[*(run.name for run in runs), "lost-baseline-0"]).warnings
    assert "SYNTHETIC" in first and "no evidence" in first
    assert missing == "Missing: lost-baseline-0."
    assert page_of(runs_of()).warnings == []


def test_accuracies_of_held_out_images_are_called_so():
    shown = page_of(runs_of(dataset="cifar10_validation"), train_images=40000)
    (warning,) = shown.warnings
    assert "a validation set, held out" in warning and "not on the test set" in warning
    assert "CIFAR-10 validation (40,000 training images, 10,000 validation images), " in shown.summary
    assert shown.facts["Data"] == "CIFAR-10 validation, 40,000 training and 10,000 validation images"
    document = Document(to_html(shown))
    assert shown.sections[0].tables[0].caption.startswith("Validation accuracy on CIFAR-10 validation")
    assert document.figure["split"] == "validation"
    texts = [each["text"].lower() for tag in ("p", "caption") for each in document.all(tag)]
    assert any("validation accuracy" in text for text in texts) and not any("test accuracy" in text for text in texts)


def test_what_was_run_is_said(document):
    facts = dict(zip((e["text"] for e in document.all("dt")), (e["text"] for e in document.all("dd")), strict=True))
    assert facts["Preset"] == "replication"
    assert facts["Data"] == "CIFAR-10, 50,000 training and 10,000 test images"
    assert facts["Seeds"] == "0"
    assert facts["Runs"] == "16 of 16 runs"
    assert facts["Recipe"].startswith("Adam, learning rate 0.001, ")
    assert facts["PyTorch"] == "2.14.1" and facts["Device"] == "cpu"
