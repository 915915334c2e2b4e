"""One colour and one marker for each model, on every screen and in every picture."""

import itertools

# Okabe and Ito's palette: distinct for colour-blind readers, and in print.
MODELS = {
    "01_blocking": ("#D55E00", "o"),
    "02_threaded": ("#000000", "s"),
    "03_epoll": ("#0072B2", "^"),
}
OTHER_STYLES = [
    ("#009E73", "D"),
    ("#CC79A7", "v"),
    ("#E69F00", "P"),
    ("#56B4E9", "X"),
    ("#7F7F7F", "*"),
    ("#A05A2C", "h"),
]


def styles(names):
    """Return {name: (colour, marker)}: the models' own, and the next free ones for other servers.

    A name may go on behind a comma: "02_threaded, switch interval 5 ms". colour: "#RRGGBB".
    marker: Matplotlib's name for it.
    """
    others = itertools.cycle(OTHER_STYLES)
    return {name: MODELS.get(name.split(",")[0]) or next(others) for name in names}


def luminance(colour):
    """Return the relative luminance of "#RRGGBB", from 0 to 1 (WCAG 2.2)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return sum(share * one for share, one in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    """Return the contrast of two colours, from 1 to 21 (WCAG 2.2: 4.5 is enough for a text)."""
    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def text_on(colour):
    """Return black or white, whichever is easier to read on a colour."""
    return max("#000000", "#FFFFFF", key=lambda text: contrast(text, colour))
