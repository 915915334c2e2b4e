"""The page that shows recordings step by step: one HTML file that contains all it needs."""

import base64
import gzip
import json
from pathlib import Path

from clients.console.palette import styles, text_on

STEPS = Path(__file__).with_name("steps.html")  # of the three models, committed
ON_DARK = {"#000000": "#FFFFFF"}  # what cannot be seen on a dark page


def build(bundle):
    """Return the page, a text, that shows a Bundle."""
    marks = [
        [{"paper": paper, "ink": text_on(paper)} for paper in (colour, ON_DARK.get(colour, colour))]
        for colour, _ in styles(bundle["programs"]).values()
    ]
    data = base64.b64encode(gzip.compress(json.dumps(bundle).encode(), mtime=0)).decode()
    return render("page.html.j2", data=data, marks=marks)


def render(template, **values):
    """Return a template of the folder web/, filled in."""
    import jinja2  # not at the top: it takes a sixth of a start that may have nothing to draw

    loader = jinja2.FileSystemLoader(STEPS.with_name("web"))
    how = {"autoescape": True, "trim_blocks": True, "lstrip_blocks": True}
    return jinja2.Environment(loader=loader, **how).get_template(template).render(values)
