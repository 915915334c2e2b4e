"""Open each page of the built site in Chromium, as a reader would, from a server on the loopback.

Fails if a page reports an error, loads anything from another host, or does not draw its flowchart.
Run it at the top after `bash .site/build`: .venv/bin/python .site/walk.py
"""

import functools
import http.server
import pathlib
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from clients.tests import browser

HTML = pathlib.Path(__file__).resolve().parent / "out" / "html"
SIZES = (1280, 720), (390, 844)  # a laptop, a phone; in CSS pixels
ERRORS = """window.errors = [];
addEventListener("error", event => errors.push(event.message || event.target.outerHTML), true);"""


class Site(http.server.SimpleHTTPRequestHandler):
    """The files of the site, without a line in the log for each."""

    def log_message(self, *args):
        pass


def problems(page, address, has_flowchart):
    """Open one page; yield what is wrong with it, a sentence each."""
    page.requested_urls.clear()
    page.call("Page.navigate", url=address)
    page.until(lambda: page.value("location.href") == address)
    page.until(lambda: page.value("document.readyState") == "complete")
    if has_flowchart:
        page.until(lambda: page.value("!!document.querySelector('.mermaid svg')"), "the flowchart")
    yield from page.value("errors")
    yield from (url for url in page.requested_urls if not url.startswith((address[:17], "data:")))
    for width, height in SIZES:
        with page.sized(width, height):
            if (pixels := page.value("document.documentElement.scrollWidth")) > width:
                yield f"{pixels} pixels wide in a window of {width}"


def main():
    handler = functools.partial(Site, directory=HTML)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    top = f"http://127.0.0.1:{server.server_port}"
    paths = [path for path in sorted(HTML.rglob("*.html")) if not path.name.endswith(".py.html")]
    wrong = 0
    with browser.opened("about:blank") as page:
        page.call("Page.addScriptToEvaluateOnNewDocument", source=ERRORS)
        for path in paths:
            flowchart = 'class="mermaid"' in path.read_text(encoding="utf-8")
            for problem in problems(page, f"{top}/{path.relative_to(HTML)}", flowchart):
                wrong += 1
                print(f"{path.relative_to(HTML)}: {problem}")
    print(f"{len(paths)} pages opened, {wrong} problems")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
