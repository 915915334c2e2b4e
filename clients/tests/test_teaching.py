"""The teacher's script: each key of each row, in order, and on the screen what the row promises."""

import re
import shlex

import pytest

from clients.system import processes
from clients.tests.in_the_classroom import play, shows

pytestmark = pytest.mark.slow
PAGE = processes.ROOT / "clients" / "TEACHING.md"
OPTIONS = {"--backlog": "backlog", "--wait": "wait"}


def scripts():
    """Return [(model, options of its server, [(keys, promised texts)])], one per command."""
    found = []
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line[1:-1].split("|")]
        if len(cells) != 4 or not re.search(r"<kbd>|clients\.classroom", cells[1]):
            continue
        promised = re.findall(r"`([^`]+)`", cells[3])
        if cells[1].startswith("`"):
            model, *options = shlex.split(cells[1].strip("`").partition("classroom ")[2])
            pairs = zip(options[::2], options[1::2], strict=True)
            numbers = {OPTIONS[name]: float(value) for name, value in pairs}
            found.append((model, {"backlog": 5} | numbers, [([], promised)]))
        else:
            found[-1][2].append((re.findall(r"<kbd>(.)</kbd>", cells[1]), promised))
    return found


def test_the_page_has_a_script_for_each_command():
    assert [model for model, *_ in scripts()] == [
        *("01_blocking", "02_threaded", "03_epoll", "01_blocking")
    ]
    assert all(keys or row == 0 for _, _, rows in scripts() for row, (keys, _) in enumerate(rows))


@pytest.mark.parametrize("number", range(4))
def test_each_key_shows_what_its_row_promises(number):
    model, options, rows = scripts()[number]
    options["backlog"] = int(options["backlog"])
    options["wait"] = 10 * options.get("wait", 0)  # for a busy machine
    programs = list(processes.models().values())
    place = programs.index(processes.find_server(model))
    steps = []
    for keys, promised in rows:
        steps += [*(key for key in keys if key != "q"), shows(*promised)]
    play(model, *steps, size=(110, 36), programs=programs[place:] + programs[:place], **options)
