"""The report of a comparison: the tables for the terminal, and a page that opens offline."""

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from clients.console.formatting import number
from load_tests.harness import phrases
from load_tests.harness.results import OUTCOMES

COLUMNS = {  # name of a measure: its heading
    "visitors": "visitors",
    "unserved": "unserved",
    "throughput": "greetings per s",
    "p50": "latency p50",
    "tail": "latency p99",
    "threads": "threads",
}
IMPATIENT = {name: COLUMNS[name] for name in COLUMNS if name != "threads"}
IMPATIENT |= {"goodput": "goodput per s"}
MORE = {"in_service": "in service", "memory": "memory/ connection", "cpu": "CPU/ greeting"}


def table(summary, wide):
    """Return the table of all the runs; repeats share a row. wide: with all columns."""
    results, last, notes = summary.results, None, phrases.footnotes(summary)
    columns = (IMPATIENT if results.config.timeout else COLUMNS) | (MORE if wide else {})
    look = {"box": SIMPLE_HEAD, "pad_edge": False, "collapse_padding": True}
    shown = Table(title=phrases.asked(results), title_style="", caption_style="", **look)
    shown.caption, shown.title_justify, shown.caption_justify = notes, "left", "left"
    shown.add_column("server", no_wrap=True)
    unit = phrases.load_unit(results.config).replace("second", "s")
    for heading in (unit, *columns.values()):
        # With headings of two lines, all numbers fit into 80 columns next to a model's name.
        shown.add_column(heading.replace(" ", "\n", 1), justify="right")
    rows = [(row.load, row.model, cells(row, columns)) for row in summary.rows]
    rows += [(run.load, run.model, ["failed"]) for run in results.failed_runs]
    for load, model, texts in sorted(rows, key=lambda row: row[0]):
        if last not in (None, load):
            shown.add_section()
        last = load
        shown.add_row(model, number(load), *texts)
    return shown


def cells(row, columns):
    """Return what the table shows of a Row: medians, and below them the quartiles."""
    texts = []
    for name in columns:
        value = row.values[name]
        text, latency = phrases.shown(name, value), row.runs[0].latency["first_greeting"]
        if name == "tail" and latency.p99 is None and value:
            text += f"\nmax of {latency.asked}"
        if value and value.low < value.high:
            text += f"\n{phrases.quartiles(name, value)}"
        alarming = name == "unserved" and value.amount
        texts.append(Text(text, style="bold red" if alarming else ""))
    return texts


def page(summary, pictures):
    """Return the page, which needs no other file. pictures: {name of a figure: PNG in base64}."""
    from jinja2 import Environment, FileSystemLoader  # not at the top: only the page needs it

    folder = FileSystemLoader(Path(__file__).parent)
    forms = Environment(loader=folder, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    found = [run.outcomes for run in summary.results.runs]
    seen = {name: OUTCOMES[name] for name in OUTCOMES if any(getattr(one, name) for one in found)}
    return forms.get_template("report.html.j2").render(
        summary=summary, phrases=phrases, outcomes=seen, pictures=pictures
    )
