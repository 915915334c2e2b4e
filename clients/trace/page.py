"""The page that shows recordings step by step: one HTML file that contains all it needs."""

import base64
import gzip
import json
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from clients.console.palette import styles, text_on

STEPS = Path(__file__).with_name("steps.html")  # of the three models, committed
LOADER = FileSystemLoader(STEPS.with_name("web"))
TEMPLATES = Environment(loader=LOADER, autoescape=True, trim_blocks=True, lstrip_blocks=True)
ON_DARK = {"#000000": "#FFFFFF"}  # what cannot be seen on a dark page


def build(bundle):
    """Return the page, a text, that shows a Bundle."""
    marks = [
        [{"paper": paper, "ink": text_on(paper)} for paper in (colour, ON_DARK.get(colour, colour))]
        for colour, _ in styles(bundle["programs"]).values()
    ]
    data = base64.b64encode(gzip.compress(json.dumps(bundle).encode(), mtime=0)).decode()
    return TEMPLATES.get_template("page.html.j2").render(data=data, marks=marks)
