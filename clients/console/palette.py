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

    colour: "#RRGGBB". marker: Matplotlib's name for it.
    """
    others = itertools.cycle(OTHER_STYLES)
    return {name: MODELS[name] if name in MODELS else next(others) for name in names}
