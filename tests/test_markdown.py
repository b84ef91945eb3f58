import pandas as pd
import pytest

from lib.report import markdown

FRAME = pd.DataFrame(
    [["a", "1", "x", "0.5"], ["a", "1", "y", ""], ["a", "2", "x", "10.25"], ["b", "2", "x", "0"]],
    columns=["Model", "Depth", "Unit", "n"],
)


def test_a_table_reads_as_plain_text_too():
    assert markdown.table(FRAME, ["Model", "Depth"]) == (
        "| Model | Depth | Unit |     n |\n"
        "| ----- | ----- | ---- | ----: |\n"
        "| a     | 1     | x    |   0.5 |\n"
        "|       |       | y    |     – |\n"
        "|       | 2     | x    | 10.25 |\n"
        "| b     | 2     | x    |     0 |\n"
    )


def test_the_frame_stays_as_it_was():
    before = FRAME.copy()
    markdown.table(FRAME, ["Model"])
    markdown.bold(FRAME, "n", [True] * 4)
    pd.testing.assert_frame_equal(FRAME, before)


@pytest.mark.parametrize("names", [0, 1])
def test_the_narrowest_column_is_as_wide_as_a_ruler_needs(names):
    ruler = markdown.table(pd.DataFrame({"n": ["1"]}), names=names).splitlines()[1]
    assert ruler == ("| --- |" if names else "| --: |")


def test_bold_is_where_it_is_told():
    assert list(markdown.bold(FRAME, "Unit", [False, True, False, True])["Unit"]) == ["x", "**y**", "x", "**x**"]
