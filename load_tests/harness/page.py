"""The report of a comparison as a page that opens offline."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from load_tests.harness import phrases
from load_tests.harness.results import OUTCOMES


def page(summary, pictures):
    """Return the whole report as one HTML text that needs no other file; see report.html.j2.

    pictures: [(explanation, PNG in base64), …].
    """
    folder = FileSystemLoader(Path(__file__).parent)
    forms = Environment(loader=folder, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return forms.get_template("report.html.j2").render(
        results=summary.results,
        asked=phrases.asked(summary.results),
        footnotes=phrases.footnotes(summary),
        failures=phrases.failures(summary.results),
        outcomes=OUTCOMES,
        figures=pictures,
    )
