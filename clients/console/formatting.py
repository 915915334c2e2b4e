"""Numbers as a person writes them: for tables, pictures and sentences."""


def number(value):
    """Return a number with two or three digits, and commas between the thousands."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"


def milliseconds(value):
    """Return a time given in milliseconds in the unit that is easier to read, ms or s."""
    return f"{number(value / 1000)} s" if value >= 1000 else f"{number(value)} ms"


def count(amount, noun):
    """Return an amount of things in words: "1 thread", "2 Locust processes"."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{amount:,} {noun}{'' if amount == 1 else plural}"
