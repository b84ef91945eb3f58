"""lib/source.py: the digest of a source file is of what it means, and of all of that."""

import itertools
from pathlib import Path

import pytest

from lib.source import digest
from stages.train import DECIDES_RESULTS, ROOT

SOURCE = '''"""A module."""

import math


class Layer:
    """A layer."""

    rate = 0.05

    def scale(self, x, *, power=2):
        # The comment.
        y = x * self.rate
        y = y + 1
        if y > 0 and x != None:
            return math.sqrt(y) ** power
        return -y, [x, y], {"a": 1, **{}}
'''
SAME = {
    "comment changed": ("# The comment.", "# Another one, and longer."),
    "comment taken away": ("        # The comment.\n", ""),
    "comment at a line's end": ("y = y + 1", "y = y + 1  # more"),
    "module's docstring changed": ("A module.", "Another text."),
    "module's docstring taken away": ('"""A module."""\n', ""),
    "class's docstring taken away": ('    """A layer."""\n', ""),
    "docstring added": ("power=2):\n", 'power=2):\n        """Scale."""\n'),
    "blank lines": ("        y = y + 1\n", "\n\n        y = y + 1\n\n"),
    "spaces": ("x * self.rate", "x*self . rate"),
    "brackets that change nothing": ("x * self.rate", "(x * self.rate)"),
    "a statement on two lines": ("x * self.rate", "(x *\n    self.rate)"),
    "a comma at the end": ("[x, y]", "[\n    x,\n    y,\n]"),
    "quotes": ('"a"', "'a'"),
    "spelling of a number": ("0.05", "5e-2"),
}
OTHER = {
    "constant": ("0.05", "0.5"),
    "constant, in its last bit": ("0.05", "0.05000000000000001"),
    "constant's type": ("y + 1", "y + 1.0"),
    "truth for one": ("y + 1", "y + True"),
    "text": ('"a"', '"b"'),
    "bytes for text": ('"a"', 'b"a"'),
    "text for a number": ("y + 1", 'y + "1"'),
    "none for zero": ("y > 0", "y > None"),
    "zero for none": ("!= None", "!= 0"),
    "default": ("power=2", "power=3"),
    "default taken away": ("power=2", "power"),
    "argument no longer by name": ("*, ", ""),
    "name of a variable": ("return -y", "return -x"),
    "name of an attribute": ("self.rate", "self.late"),
    "name of a function": ("math.sqrt", "math.cbrt"),
    "name of a method": ("scale", "shrink"),
    "name of a class": ("class Layer", "class Layers"),
    "import": ("import math", "import cmath as math"),
    "operator": ("x * self", "x / self"),
    "comparison": ("y > 0", "y >= 0"),
    "and, or": (" and ", " or "),
    "sign": ("return -y", "return +y"),
    "sign taken away": ("return -y", "return y"),
    "brackets that change the order": ("x * self.rate\n        y = y + 1", "x * (self.rate + 1)"),
    "order of statements": ("y = x * self.rate\n        y = y + 1", "y = y + 1\n        y = x * self.rate"),
    "order of arguments": ("[x, y]", "[y, x]"),
    "list for tuple": ("[x, y]", "(x, y)"),
    "unpacking for a pair": ("**{}", "None: {}"),
    "statement taken away": ("        y = y + 1\n", ""),
    "statement twice": ("        y = y + 1\n", "        y = y + 1\n" * 2),
    "statement moved out of its block": ("            return math", "            pass\n        return math"),
    "in place": ("y = y + 1", "y += 1"),
    "result for none": ("return -y, [x, y], {", "-y, [x, y], {"),
}


def digest_of(source: str, folder: Path) -> str:
    path = folder / "source.py"
    path.write_text(source)
    return digest(path)


def changed(change: tuple[str, str]) -> str:
    old, new = change
    assert old in SOURCE
    return SOURCE.replace(old, new, 1)


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_what_means_nothing_to_the_interpreter_does_not_change_the_digest(
    change: tuple[str, str], tmp_path: Path
) -> None:
    assert changed(change) != SOURCE
    assert digest_of(changed(change), tmp_path) == digest_of(SOURCE, tmp_path)


def test_anything_else_changes_it_and_no_two_changes_alike(tmp_path: Path) -> None:
    sources = {"as it was": SOURCE} | {name: changed(change) for name, change in OTHER.items()}
    digests = {name: digest_of(source, tmp_path) for name, source in sources.items()}
    for one, other in itertools.combinations(digests, 2):
        assert digests[one] != digests[other], (one, other)


def test_ends_of_lines_do_not_change_it(tmp_path: Path) -> None:
    path = tmp_path / "source.py"
    path.write_bytes(SOURCE.replace("\n", "\r\n").encode())
    assert digest(path) == digest_of(SOURCE, tmp_path)


def test_the_files_name_and_place_do_not_change_it(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "other.py").write_text(SOURCE)
    assert digest(tmp_path / "elsewhere" / "other.py") == digest_of(SOURCE, tmp_path)


@pytest.mark.parametrize("name", DECIDES_RESULTS)
def test_each_file_that_decides_results_has_a_digest_that_a_statement_more_would_change(
    name: str, tmp_path: Path
) -> None:
    source = (ROOT / name).read_text()
    assert digest(ROOT / name) == digest_of(source, tmp_path)
    assert digest_of(source + "\n# a comment\n", tmp_path) == digest(ROOT / name)
    assert digest_of(source + "\nX = 1\n", tmp_path) != digest(ROOT / name)
