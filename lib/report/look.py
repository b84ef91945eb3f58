"""How every figure distinguishes the curves of orderings: by colour, and by dashes where colour fails."""

import dataclasses

import seaborn as sns

# In line widths, on and off alternately; () is solid. Seven, so that with the palette's ten colours no two of seventy
# curves are alike.
DASHES: list[tuple[float, ...]] = [
    (),
    (4, 1.5),
    (1, 1),
    (3, 1.25, 1.5, 1.25),
    (5, 1, 1, 1),
    (6, 2),
    (3, 1, 1, 1, 1, 1),
]


@dataclasses.dataclass(frozen=True)
class Look:
    """A curve's colour, as #rrggbb, and its dashes."""

    colour: str
    dashes: tuple[float, ...]


def looks(count: int) -> list[Look]:
    """`count` looks, cycling through seaborn's colour-blind palette and the dashes."""
    palette = sns.color_palette("colorblind").as_hex()
    return [Look(palette[place % len(palette)].lower(), DASHES[place % len(DASHES)]) for place in range(count)]


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours, from 1 (none) to 21 (black and white) (WCAG 2.2, "contrast ratio")."""
    darker, lighter = sorted([_luminance(one), _luminance(other)])
    return (lighter + 0.05) / (darker + 0.05)


def legible(colour: str, background: str, least: float = 3.0) -> str:
    """A colour, darkened or lightened just enough to stand out from a background.

    Curves and marks need a contrast of 3 (WCAG 2.2, success criterion 1.4.11), which half of the palette, such as its
    orange and yellow, lacks on white. Raises ValueError where no mixture has that contrast.
    """
    towards = max("#000000", "#ffffff", key=lambda end: contrast(end, background))
    for part in range(101):
        mixed = _mixed(colour, towards, part / 100)
        if contrast(mixed, background) >= least:
            return mixed
    raise ValueError(f"nothing has a contrast of {least} to {background}")


def _channels(colour: str) -> list[int]:
    """Red, green and blue, each from 0 to 255."""
    return [int(colour[at : at + 2], 16) for at in (1, 3, 5)]


def _mixed(one: str, other: str, part: float) -> str:
    """A colour with a fraction, from 0 to 1, of another mixed in."""
    pairs = zip(_channels(one), _channels(other), strict=True)
    return "#" + "".join(f"{round(a + part * (b - a)):02x}" for a, b in pairs)


def _luminance(colour: str) -> float:
    """From 0 (black) to 1 (white) (WCAG 2.2, "relative luminance")."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in _channels(colour))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
