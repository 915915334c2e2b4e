"""The page on which one walks through recordings: one HTML file that holds all it needs."""

import json
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from clients.console.palette import styles

KEPT = Path(__file__).with_name("steps.html")  # of the three models
PARTS = Path(__file__).with_name("web")
DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)
TURNED = {"#000000": "#FFFFFF"}  # what cannot be seen on a dark page


def build(data):
    """Return the page, a text, that shows what recording.record() has returned."""
    environment = Environment(
        loader=FileSystemLoader(PARTS), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    marks = [
        [{"paper": paper, "ink": ink(paper)} for paper in (colour, TURNED.get(colour, colour))]
        for colour, _ in styles(data["programs"]).values()
    ]
    # In JSON a "<" stands in texts only; as it is, "</script>" in one would end the element.
    inlined = json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("<", r"\u003c")
    parts = {name: (PARTS / name).read_text() for name in ("page.css", "navigation.js", "view.js")}
    return environment.get_template("page.html.j2").render(data=inlined, marks=marks, parts=parts)


def ink(paper):
    """Return the colour of a text on paper, "#RRGGBB": black or white, what is seen better.

    By the contrast of WCAG 2.2 the two are alike at a luminance of 0.179.
    """
    parts = [int(paper[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    luminance = sum(
        weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True)
    )
    return "#000000" if luminance > 0.179 else "#FFFFFF"


def data_of(page):
    """Return the recordings that a page shows, as they were given to build()."""
    return json.loads(DATA.search(page)[1])


def outdated(page, programs):
    """Return the names of the programs whose texts are no longer those that the page shows.

    programs: {name: path}. A program that the page does not show at all is named, too.
    """
    shown = data_of(page)["programs"]
    return [
        name
        for name, path in programs.items()
        if shown.get(name, {}).get("lines") != path.read_text().splitlines()
    ]
