"""The page that shows recordings step by step: one HTML file that contains all it needs."""

import base64
import gzip
import json
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from clients.console.palette import styles

STEPS = Path(__file__).with_name("steps.html")  # of the three models, committed
TEMPLATES = Environment(
    loader=FileSystemLoader(STEPS.with_name("web")),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
ON_DARK = {"#000000": "#FFFFFF"}  # what cannot be seen on a dark page


def build(bundle):
    """Return the page, a text, that shows a Bundle."""
    marks = [
        [{"paper": paper, "ink": ink(paper)} for paper in (colour, ON_DARK.get(colour, colour))]
        for colour, _ in styles(bundle["programs"]).values()
    ]
    data = base64.b64encode(gzip.compress(json.dumps(bundle).encode(), mtime=0)).decode()
    return TEMPLATES.get_template("page.html.j2").render(data=data, marks=marks)


def ink(paper):
    """Return the colour of a text on paper, "#RRGGBB": black or white, whichever is legible.

    By the contrast of WCAG 2.2 the two are equal at a luminance of 0.179.
    """
    parts = [int(paper[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    luminance = sum(
        weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True)
    )
    return "#000000" if luminance > 0.179 else "#FFFFFF"
