"""Check that each link and each picture of the built site leads to something that is there."""

import html.parser
import pathlib
import sys
import urllib.parse


class Page(html.parser.HTMLParser):
    """The ids of a page, and the addresses that it links to."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids |= {found[name] for name in ("id", "name") if found.get(name)}
        for name in ("href", "src", "srcset"):
            if found.get(name) and tag != "base":
                self.links.append(found[name].split(" ")[0])


def broken(pages):
    """Yield (page, link) for each link of these pages that leads nowhere. pages: {path: Page}."""
    for path, page in pages.items():
        for link in page.links:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = path
            if parts.path:
                target = (path.parent / urllib.parse.unquote(parts.path)).resolve()
            target = target / "index.html" if target.is_dir() else target
            fragment = urllib.parse.unquote(parts.fragment)
            # The fragments of the step-by-step page are its state ("model=…"), not ids.
            anchor = target in pages and fragment and "=" not in fragment
            if not target.is_file() or (anchor and fragment not in pages[target].ids):
                yield path, link


def main():
    top = pathlib.Path(sys.argv[1]).resolve()
    pages = {path: Page(path) for path in top.rglob("*.html")}
    found = [f"{path.relative_to(top)}: {link}" for path, link in broken(pages)]
    print("\n".join(found) or f"{len(pages)} pages, no broken link")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
