"""Sphinx's configuration: every page of the repository as it is, and no code executed.

`bash .site/build` builds the site into .site/out/html.
"""

import os
import pathlib
import re
import shutil
import subprocess

TOP = pathlib.Path(__file__).resolve().parent.parent
FILES = subprocess.check_output(["git", "ls-files"], cwd=TOP, text=True).splitlines()
DOCS = [name for name in FILES if name.endswith((".md", ".ipynb")) and not name.startswith(".")]
README = (TOP / "README.md").read_text(encoding="utf-8")
READING_ORDER = re.findall(r"^\| \d+ \| \[.*?\]\((.*?)\)", README, re.MULTILINE)
LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)\s#]*)(#[^)\s]*)?(?=\))")
IMAGES = (".png", ".svg")

project = html_title = "How servers handle many clients"
extensions = ["myst_nb", "sphinxcontrib.mermaid"]
include_patterns = DOCS
root_doc = "README"
nb_execution_mode = "off"
suppress_warnings = ["misc.highlighting_failure"]  # of IPython's lines that begin with "!"
myst_heading_anchors = 5
myst_fence_as_directive = ["mermaid"]
html_theme = "furo"
html_copy_source = False
html_static_path = ["out/static"]
myst_url_schemes = {
    "http": None,
    "https": None,
    "copy": {"url": "{{path}}"},
    "part": {"url": "{{path}}#{{fragment}}"},
}
mermaid_fullscreen = False
mermaid_use_local = "mermaid/mermaid.esm.min.mjs"


def navigation():
    """Return the hidden tables of contents for the front page, as MyST Markdown."""
    others = [name for name in DOCS if name not in READING_ORDER and name != "README.md"]
    parts = {"In reading order": READING_ORDER, "More": others}
    for caption, names in parts.items():
        documents = "\n".join(f"/{pathlib.PurePath(name).with_suffix('')}" for name in names)
        yield f"\n\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{documents}\n```\n"


def link_to_copies(app, docname, source):
    """Let a link to a file that is not a document lead to its copy: sources have a page each."""
    folder = (TOP / docname).parent

    def target(match):
        path, fragment = match[1], match[2] or ""
        place = (folder / path).resolve() if path else TOP
        if not path or place.suffix == ".ipynb":
            # Jupyter keeps capitals and punctuation in the anchors of a notebook.
            return path + re.sub(r"[^\w#-]", "", fragment).lower()
        if not place.exists() or str(place.relative_to(TOP)) in DOCS or place.suffix in IMAGES:
            return match[0]
        if place.is_dir():
            near = next(at for at in (place, *place.parents) if (at / "README.md").exists())
            return f"{os.path.relpath(near, folder)}/README.md"
        if place.suffix == ".py":
            return f"copy:{path}.html"
        return f"part:{path}{fragment}" if fragment else f"copy:{path}"

    source[0] = LINK.sub(target, source[0])
    if docname == root_doc:
        source[0] += "".join(navigation())


def source_pages(app):
    """Yield a page for each Python file, with its line numbers as anchors (line-7)."""
    for name in (name for name in FILES if name.endswith(".py") and not name.startswith(".")):
        options = {"linenos": "inline", "linespans": "line"}
        body = app.builder.highlighter.highlight_block(
            (TOP / name).read_text(encoding="utf-8"), "python", **options
        )
        yield name, {"title": name, "body": f"<h1>{name}</h1>{body}"}, "page.html"


def copy_files(app, exception):
    """Copy what pages show or link to; each folder's README is its index, too."""
    if exception:
        return
    for name in FILES:
        if name.endswith((*IMAGES, ".html", ".toml", ".txt", ".conf", ".c")):
            (out := pathlib.Path(app.outdir) / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(TOP / name, out)
    for page in pathlib.Path(app.outdir).rglob("README.html"):
        shutil.copyfile(page, page.with_name("index.html"))


def setup(app):
    app.connect("source-read", link_to_copies)
    app.connect("html-collect-pages", source_pages)
    app.connect("build-finished", copy_files)
