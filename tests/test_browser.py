"""The page in a real Chromium without a screen: what it shows, what its controls do, what it asks of the network."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from lib.report import look
from lib.report.page import BACKGROUND, to_html
from tests.pages import page_of, run_of, runs_of

pytestmark = pytest.mark.browser
expect.set_options(timeout=30_000)  # a busy machine is no fault of the page

KNOWN = (
    *("chromium", "chromium-browser", "google-chrome"),
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
CHROMIUM = next(filter(None, map(shutil.which, KNOWN)), None)
CURE = "no Chromium here: `apt-get install chromium`, or Google Chrome, and these tests run"
if CHROMIUM is None and not os.environ.get("CI"):
    pytest.skip(CURE, allow_module_level=True)

DESK, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
# The lines that Plotly has drawn in an element, but for the bands' edges, which have no width.
LINES = "[...plot.querySelectorAll('.scatterlayer path.js-line')].filter((each) => each.style.strokeWidth !== '0px')"
# The names of the curves in each panel that is to be seen, without bands and the paper's marks.
DRAWN = f"""() => [...document.querySelectorAll(".panel:not([hidden]) .plot")].map((plot) => {{
    const names = plot.data.filter((each) => each.mode !== "markers" && each.name !== "band").map((each) => each.name);
    if ({LINES}.length !== names.length) throw Error(`other lines are drawn than ${{names}}`);
    return names;
}})"""
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
NAMES = ["ReLU-IC-Conv2D", "IC-Conv2D-ReLU", "Conv2D-ReLU-IC", "Baseline"]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    assert CHROMIUM, CURE
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@contextlib.contextmanager
def visit(browser: Browser, folder: Path, text: str, **settings: object) -> Iterator[Page]:
    """The page, opened from a file; at the end it must have said nothing and asked for nothing but itself."""
    file = folder / "report.html"
    file.write_text(text)
    said, asked = [], []
    with contextlib.closing(browser.new_context(**{"viewport": DESK, **settings})) as context:
        tab = context.new_page()
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("dialog", lambda dialog: said.append(dialog.message))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(file.as_uri())
        yield tab
        assert said == []
        assert asked == [file.as_uri()]


@pytest.fixture(scope="module")
def opened(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Four networks, four orderings, three seeds. Opened once; `desk` makes it good as new."""
    with visit(chromium, tmp_path_factory.mktemp("desk"), to_html(page_of(runs_of(seeds=3)))) as tab:
        yield tab


@pytest.fixture
def desk(opened: Page) -> Iterator[Page]:
    yield opened
    opened.mouse.move(0, 0)
    opened.evaluate("""() => {
        document.documentElement.style.colorScheme = "";
        document.getElementById("controls").reset();
        document.getElementById("controls").dispatchEvent(new Event("change"));
        document.getElementById("epoch").value = document.getElementById("epoch").max;
        document.getElementById("epoch").dispatchEvent(new Event("input"));
        document.activeElement.blur();
    }""")


def rgb(colour: str) -> str:
    return f"rgb({', '.join(str(int(colour[at : at + 2], 16)) for at in (1, 3, 5))})"


def numbers(text: str) -> list[float]:
    return [float(each) for each in re.findall(r"[\d.]+", text)]


def values(tab: Page) -> list[str]:
    """The first row of the table of values, a cell to a network."""
    return tab.locator("#values tbody tr").first.locator("td").all_text_contents()


def hover(tab: Page, epoch: int, accuracy: float) -> Locator:
    """The label that the mouse brings up at a point of the first panel."""
    plot = tab.locator(".plot").first
    plot.scroll_into_view_if_needed()
    at = """(plot, [x, y]) => {
        const { xaxis, yaxis } = plot._fullLayout;
        return { x: xaxis._offset + xaxis.l2p(x), y: yaxis._offset + yaxis.l2p(y) };
    }"""
    plot.hover(position=plot.evaluate(at, [epoch, accuracy]))
    return plot.locator(".hoverlayer")


def test_all_panels_and_curves_are_drawn(desk: Page) -> None:
    assert desk.locator(".panel:visible figcaption").all_text_contents() == [
        "(a) ResNet 110 on CIFAR-10",
        "(b) ResNet 164 on CIFAR-10",
        "(c) ResNet-B 110 on CIFAR-10",
        "(d) ResNet-B 164 on CIFAR-10",
    ]
    assert desk.evaluate(DRAWN) == [NAMES] * 4
    assert desk.locator(".plot .points path.point").count() == 16, "the paper's values"


def test_curves_have_the_colours_and_dashes_of_their_labels(desk: Page) -> None:
    plot = desk.locator(".plot").first
    styles = plot.evaluate(f"(plot) => {LINES}.map(({{ style }}) => [style.stroke, style.strokeDasharray])")
    expected = [rgb(look.legible(each.colour, BACKGROUND["light"])) for each in look.looks(4)]
    assert [stroke for stroke, _ in styles] == expected
    samples = desk.locator(".swatch line").evaluate_all("all => all.map((each) => each.style.strokeDasharray)")
    assert [numbers(dashes) for _, dashes in styles] == [numbers(dashes) for dashes in samples]


def test_the_mouse_takes_curves_networks_and_marks_away_and_brings_them_back(desk: Page) -> None:
    desk.get_by_role("checkbox", name="Baseline").click()
    assert desk.evaluate(DRAWN) == [NAMES[:3]] * 4
    desk.get_by_role("checkbox", name="(b) ResNet 164").click()
    assert desk.evaluate(DRAWN) == [NAMES[:3]] * 3
    desk.get_by_role("checkbox", name="final values").click()
    assert desk.locator(".plot:visible .points path.point").count() == 0
    desk.get_by_role("checkbox", name="Baseline").click()
    desk.get_by_role("checkbox", name="(b) ResNet 164").click()
    assert desk.evaluate(DRAWN) == [NAMES] * 4


def test_single_runs_are_shown_by_seed(desk: Page) -> None:
    expect(desk.get_by_role("group", name="Seeds")).to_be_hidden()
    desk.get_by_role("radio", name="single runs").check()
    assert [len(names) for names in desk.evaluate(DRAWN)] == [12] * 4
    desk.get_by_role("group", name="Seeds").get_by_label("1").uncheck()
    names = [f"resnet110-{o}-{s}" for o in ("relu_ic_conv", "ic_conv_relu", "conv_relu_ic", "baseline") for s in (0, 2)]
    assert desk.evaluate(DRAWN)[0] == names


def test_the_keyboard_does_all_that_the_mouse_does(desk: Page) -> None:
    """From the top of the page by Tab alone, each stop with an outline to be seen."""
    stops: dict[str, None] = {}
    desk.locator(".skip").focus()
    for _ in range(60):
        desk.keyboard.press("Tab")
        stop, outline = desk.evaluate("""() => {
            const { tagName, name, value, id, textContent } = document.activeElement;
            const key = name ? `${name} ${value}` : id || textContent.trim().split("\\n")[0];
            return [`${tagName} ${key}`, getComputedStyle(document.activeElement).outlineStyle];
        }""")
        if stop.startswith("BODY"):
            break
        assert outline != "none", stop
        stops[stop] = None
        if stop == "INPUT ordering 3":
            desk.keyboard.press("Space")
            assert desk.evaluate(DRAWN) == [NAMES[:3]] * 4
            desk.keyboard.press("Space")
        elif stop == "INPUT panel 0":
            desk.keyboard.press("Space")
            assert desk.evaluate(DRAWN) == [NAMES] * 3
            desk.keyboard.press("Space")
        elif stop == "INPUT curves means":
            desk.keyboard.press("ArrowRight")
            assert [len(names) for names in desk.evaluate(DRAWN)] == [12] * 4
            desk.keyboard.press("ArrowLeft")
        elif stop == "INPUT end on":
            desk.keyboard.press("Space")
            assert desk.evaluate("document.querySelector('.plot').layout.xaxis.range[0]") > 9
            desk.keyboard.press("Space")
        elif stop.startswith("SUMMARY"):
            desk.keyboard.press("Enter")
            assert desk.locator("details").first.get_attribute("open") is not None
            desk.keyboard.press("Enter")
            break
    kinds = ("BUTTON theme", "A Table 1", "INPUT ordering 0", "INPUT panel 3", "INPUT paper on", "INPUT epoch")
    assert set(kinds) <= set(stops)


def test_the_chosen_epoch_is_marked_and_its_values_are_in_a_table(desk: Page) -> None:
    curves = [panel["curves"][0] for panel in page_of(runs_of(seeds=3)).figure["panels"]]

    def expected(epoch: int) -> list[str]:
        return [f"{100 * each['mean'][epoch - 1]:.2f}% ± {100 * each['sd'][epoch - 1]:.2f}%" for each in curves]

    assert values(desk) == expected(12)
    slider = desk.get_by_role("slider", name="Epoch")
    slider.focus()
    for _ in range(5):
        desk.keyboard.press("ArrowLeft")
    assert desk.locator("#epoch-shown").text_content() == "7"
    assert values(desk) == expected(7)
    assert desk.evaluate("[...document.querySelectorAll('.plot')].map((plot) => plot.layout.shapes[0].x0)") == [7] * 4


def test_hovering_tells_run_epoch_and_accuracy(desk: Page) -> None:
    curve = page_of(runs_of(seeds=3)).figure["panels"][0]["curves"][0]
    label = hover(desk, 12, 0.5)
    expect(label).to_contain_text("epoch 12")
    expect(label).to_contain_text(f"ReLU-IC-Conv2D: {100 * curve['mean'][-1]:.2f}% ± {100 * curve['sd'][-1]:.2f}%")
    expect(label).to_contain_text("the paper’s ReLU-IC-Conv2D: 82.26%")
    desk.get_by_role("radio", name="single runs").check()
    run = curve["runs"][1]
    label = hover(desk, 5, run["accuracy"][4])
    expect(label).to_have_text(f"resnet110-relu_ic_conv-1: epoch 5, {100 * run['accuracy'][4]:.2f}%")


def test_the_last_fifth_is_seen_closely(desk: Page) -> None:
    desk.get_by_role("checkbox", name="last fifth").check()
    (left, right), (low, high) = desk.evaluate(
        "(({xaxis, yaxis}) => [xaxis.range, yaxis.range])(document.querySelector('.plot').layout)"
    )
    assert 9 < left < 10 and right > 12
    assert high - low < 0.25


def test_nothing_chosen_is_said_and_undone(desk: Page) -> None:
    note = desk.get_by_text("Nothing is chosen")
    expect(note).to_be_hidden()
    for name in NAMES:
        desk.get_by_role("checkbox", name=name, exact=True).uncheck()
    expect(note).to_be_visible()
    desk.get_by_role("checkbox", name="Baseline").check()
    expect(note).to_be_hidden()
    assert desk.evaluate(DRAWN) == [["Baseline"]] * 4


def theme(tab: Page) -> tuple[str, str, str]:
    """Which theme the page, the figure and the button are in."""
    names = {rgb(colour): name for name, colour in BACKGROUND.items()}
    page = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    plot = tab.evaluate("document.querySelector('.plot').layout.paper_bgcolor")
    return names[page], names[plot], tab.locator("#theme").get_attribute("aria-pressed")


def test_the_theme_is_the_systems_until_the_button_is_pressed(desk: Page) -> None:
    assert theme(desk) == ("light", "light", "false")
    desk.emulate_media(color_scheme="dark")
    expect(desk.locator("#theme")).to_have_attribute("aria-pressed", "true")
    assert theme(desk) == ("dark", "dark", "true")
    desk.get_by_role("button", name="Dark theme").click()
    assert theme(desk) == ("light", "light", "false")
    desk.emulate_media(color_scheme="light")
    desk.get_by_role("button", name="Dark theme").click()
    assert theme(desk) == ("dark", "dark", "true")


def test_the_policy_lets_nothing_be_fetched_and_no_other_script_run(chromium: Browser, tmp_path: Path) -> None:
    """The control of the tests above: in this page no request would mean nothing if the policy did not hold."""
    file = tmp_path / "report.html"
    file.write_text(to_html(page_of(runs_of(1, 1))))
    with contextlib.closing(chromium.new_context()) as context:
        tab = context.new_page()
        tab.goto(file.as_uri())
        refused = tab.evaluate("""async () => {
            const refused = [];
            document.addEventListener("securitypolicyviolation", (event) => refused.push(event.effectiveDirective));
            await fetch("http://localhost:1/").catch(() => {});
            const script = document.createElement("script");
            script.textContent = "document.title = 'broken into'";
            document.body.append(script);
            document.body.append(Object.assign(new Image(), { src: "http://localhost:1/" }));
            for (let waited = 0; waited < 3000 && refused.length < 3; waited++)
                await new Promise((resolve) => setTimeout(resolve, 10));
            return refused;
        }""")
        assert refused == ["connect-src", "script-src-elem", "img-src"]
        assert "broken" not in tab.title()


@pytest.mark.parametrize(
    ("networks", "orderings", "facts"),
    [
        (1, 1, {"epochs": 1}),
        (6, 5, {"epochs": 3, "torch": "2.9.0 then 2.14.1+cu130", "device": "NVIDIA_H100_80GB_HBM3_" * 6}),
        (4, 4, {"epochs": 200, "seeds": 5}),
    ],
    ids=["one of all", "six networks, long names", "200 epochs of 5 seeds"],
)
def test_any_study_fits_a_phone(chromium: Browser, tmp_path: Path, networks, orderings, facts) -> None:
    text = to_html(page_of(runs_of(networks, orderings, **facts)))
    phone = {"viewport": PHONE, "is_mobile": True, "has_touch": True, "color_scheme": "dark"}
    with visit(chromium, tmp_path, text, **phone) as tab:
        assert [len(names) for names in tab.evaluate(DRAWN)] == [orderings] * networks
        assert tab.evaluate(SIDEWAYS) == 0
        assert tab.evaluate("innerWidth") == 360, "no part made the browser zoom out"
        plot = tab.locator(".plot").first
        plot.scroll_into_view_if_needed()
        plot.tap(position={"x": 200, "y": 100})
        expect(plot.locator(".hoverlayer")).to_contain_text("epoch")
        tab.set_viewport_size({"width": 740, "height": 360})
        expect(plot.locator(".main-svg").first).to_have_css("width", re.compile(r"[67]\d\d(\.\d+)?px"))
        assert tab.evaluate(SIDEWAYS) == 0


def test_names_that_look_like_html_are_shown_as_they_are(chromium: Browser, tmp_path: Path) -> None:
    name = "<b>bold</b></script><img src=x onerror=alert(1)><a href='https://a.b'>&amp;</a>"
    runs = [run_of(name, "baseline", seed, dataset="<i>data</i>") for seed in (0, 1)]
    with visit(chromium, tmp_path, to_html(page_of(runs))) as tab:
        tab.get_by_role("radio", name="single runs").check()
        expect(hover(tab, 6, runs[0].history[5].test_accuracy)).to_contain_text(f"{name}-baseline-")
        assert tab.locator("img, .hoverlayer a").count() == 0
        assert tab.locator("figcaption").first.text_content() == "(a) ResNet 8 on <i>data</i>"


def test_without_scripts_the_tables_are_there_and_a_note_for_the_figure(chromium: Browser, tmp_path: Path) -> None:
    with visit(chromium, tmp_path, to_html(page_of(runs_of())), java_script_enabled=False) as tab:
        expect(tab.get_by_role("rowheader", name="2x{ReLU-IC-Conv2D}").first).to_be_visible()
        expect(tab.get_by_text("figure4.svg")).to_be_visible()
        expect(tab.get_by_role("checkbox")).to_have_count(0)
        expect(tab.get_by_role("button")).to_have_count(0)


@pytest.mark.parametrize("accuracy_from", [0.3, 0.9, 0.999])
def test_no_curve_is_hidden_below_the_axis(accuracy_from: float, chromium: Browser, tmp_path: Path) -> None:
    """These rise to some 0.7; the paper's values are marks, not curves."""
    page = page_of(runs_of(networks=1), report={"accuracy_from": accuracy_from})
    with visit(chromium, tmp_path, to_html(page)) as tab:
        low, high = tab.evaluate("document.querySelector('.plot').layout.yaxis.range")
    assert low < high and high > 0.7
    assert low == accuracy_from if accuracy_from == 0.3 else low < 0.6
