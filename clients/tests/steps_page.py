"""What tests read from the page of the steps."""

import base64
import gzip
import json
import re

DATA = re.compile(r'<script type="text/plain" id="data">(.*?)</script>')


def bundle_of(page):
    """Return the Bundle that a page shows."""
    return json.loads(gzip.decompress(base64.b64decode(DATA.search(page)[1])))


def outdated(page, programs):
    """Return the names of the programs whose text is not the one that the page shows.

    programs: {name: path}.
    """
    shown = bundle_of(page)["programs"]
    return [
        name
        for name, path in programs.items()
        if shown.get(name, {}).get("lines") != path.read_text(encoding="utf-8").splitlines()
    ]
