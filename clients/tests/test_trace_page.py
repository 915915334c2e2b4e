"""The page of the steps: it shows the recordings that lie in it, and those are the servers' own."""

import ast
import re
import urllib.parse

import pytest

from clients.console.palette import MODELS
from clients.system.processes import models
from clients.tests.browser import Browser, in_a_browser, opened
from clients.trace.page import DATA, KEPT, build, data_of, outdated

PROGRAMS = {name: models()[name] for name in MODELS}
PAGE = KEPT.read_text()
SHOWN = data_of(PAGE)
pytestmark = pytest.mark.xdist_group("the page of the steps")
# What a reader sees, as plain data
LOOK = """(() => {
  const texts = (query, root = document) =>
    [...root.querySelectorAll(query)].map((part) => part.textContent.trim());
  return {
    where: texts("#where")[0], sentence: texts("#sentence")[0],
    model: texts("#models [aria-pressed=true]")[0], who: texts("#who")[0],
    executed: texts("#source [aria-current] .number").map(Number),
    did: [...document.querySelectorAll("#source .did")].map((mark) => mark.ariaLabel),
    marked: [...document.querySelectorAll("#source li:has(.mark:not(.did))")].map(
      (line) => Number(line.querySelector(".number").textContent)),
    threads: texts("#threads summary"), changed: texts("#threads dt.fresh"),
    queue: texts("#kernel .queue h3 b")[0],
    queued: texts("#kernel .queue .places .person").map(Number),
    outside: texts("#kernel .syn .person").map(Number),
    bars: [...document.querySelectorAll("#kernel .bar")].map((bar) => bar.ariaLabel),
    interest: texts("#kernel .interest .chip"), ready: texts("#kernel .list .chip"),
    held: texts("#kernel .held .chip b").map(Number),
    clients: [...document.querySelectorAll("#clients li p")].map((part) =>
      [...part.childNodes].filter((one) => one.localName !== "small")
        .map((one) => one.textContent).join("").trim()),
    columns: [...document.querySelectorAll(".column")].map(
      (column) => [column.getAttribute("aria-label"), texts(".clients li .fate", column)]),
  };
})()"""
BUFFERS = ["client's unsent", "server's unread", "server's unsent", "client's unread"]
# Lines just executed that are not in sight as a whole
OFF = """[...document.querySelectorAll("#source .executed")].filter((line) => {
  const [one, list] = [line, line.parentElement].map((part) => part.getBoundingClientRect());
  const end = Math.min(list.bottom, document.querySelector("footer").getBoundingClientRect().top);
  return one.top < list.top - 1 || one.bottom > end + 1;
}).map((line) => line.textContent)"""
# The lines that a mark points to, and those that come next and are not in sight
POINTED = """[
  [...document.querySelectorAll("#source .ahead")].map((mark) => mark.textContent.slice(1)),
  [...document.querySelectorAll("#source .next")].filter((line) => {
    const [one, list] = [line, line.parentElement].map((part) => part.getBoundingClientRect());
    return one.top < list.top - 2 || one.bottom > list.bottom + 2;
  }).map((line) => line.querySelector(".number").textContent)]"""


class Reader(Browser):
    """A browser that tells what a reader of this page sees."""

    def __init__(self, orders, answers, address):
        super().__init__(orders, answers, address)
        self.until(lambda: self.value("location.hash"))  # which the page sets when it is drawn

    def look(self, **place):
        """Return what a reader sees; place: parts of the link that is opened first."""
        if place:
            self.value(f"read({urllib.parse.urlencode(place)!r})")
        return self.value(LOOK)


@pytest.fixture(scope="module")
def browser():
    with opened(KEPT.as_uri(), Reader) as found:
        yield found


# What the recording says that a reader should see


def pooled(step):
    """Return a step with the values that it has in the pool."""
    pool = SHOWN["pool"]
    kernel = dict(pool[step["kernel"]])
    for name in {"connections", "epoll"} & set(kernel):
        kernel[name] = [pool[place] for place in kernel[name]]
    rows = {name: [pool[one] for one in pool[step[name]]] for name in ("threads", "clients")}
    return {"changed": []} | step | rows | {"kernel": kernel}


def sentence(step):
    rounds = step.get("rounds")
    if rounds == 1:
        return "Here 1 more round of this loop is left out; it did the same with other bytes."
    more = (
        f"Here {rounds} more rounds of this loop are left out; they did the same with other bytes."
    )
    return more if rounds else step.get("sentence", "")


def named(thread):
    """Return how the page names a thread: a client is somebody else."""
    return f"thread of {thread}" if thread and thread.startswith("client") else thread


def changed(found, index):
    """Return the names whose values are others than those that were seen of the thread before."""
    step = found[index]
    earlier = [
        SHOWN["pool"][one["variables"]]
        for one in found[:index]
        if one.get("thread") == step.get("thread") and "variables" in one
    ]
    was = earlier[-1] if earlier else {}
    now = SHOWN["pool"][step["variables"]] if "variables" in step else {}
    return sorted(name for name in step.get("changed", []) if now[name] != was.get(name))


def doing(thread, step):
    fd = "" if thread["fd"] is None else thread["fd"]
    if thread["call"]:
        what = f"asleep in {thread['call']}({fd})"
    elif thread["name"] == step.get("thread") and step["kind"] == "return":
        what = f"leaves {thread['function']}()"
    elif thread["name"] == step.get("thread") and step["kind"] == "exception":
        what = f"line {thread['line']} raised"
    else:
        what = f"next: line {thread['line']}"
    many = len(step["threads"]) > 5
    return (thread["name"].replace("client ", "t") if many else named(thread["name"])) + what


def agree(seen, story, model, index):
    """Assert that what a reader sees is the step with this index, in all its parts."""
    found = SHOWN["recordings"][story][model]
    step = pooled(found[index])
    kernel = step["kernel"]
    assert seen["where"] == f"step {index + 1} of {len(found)}"
    assert seen["model"] == model
    assert seen["sentence"] == sentence(step)
    acting = {"client": "".join(map(str, step.get("who", []))), "time": "time"}
    assert seen["who"] == acting.get(step["kind"], named(step.get("thread")))
    at = {thread["name"]: thread["line"] for thread in step["threads"]}
    begins = step["kind"] == "call" and at[step["thread"]] == step["line"]  # a new thread
    awake = step["kind"] != "sleep" and not begins and "line" in step
    assert seen["executed"] == ([step["line"]] if awake else [])
    over = step["kind"] in ("return", "exception")  # what its thread executes next is elsewhere
    next_or_asleep = [
        (thread["name"], thread["line"], thread["call"])
        for thread in step["threads"]
        if not (over and thread["name"] == step["thread"])
    ]
    assert seen["marked"] == sorted({line for _, line, _ in next_or_asleep})
    assert seen["threads"] == [doing(thread, step) for thread in step["threads"]]
    stays = (step.get("thread"), step.get("line"), None) in next_or_asleep
    did = [f"{named(step['thread'])} has executed it"] if awake and not stays else []
    assert seen["did"] == did
    assert sorted(seen["changed"]) == changed(found, index)
    full = ", full" if kernel["queue"] >= kernel["limit"] else ""
    assert seen["queue"] == f"{kernel['queue']} of {kernel['limit']}{full}"
    rows = kernel["connections"]
    assert seen["queued"][::-1] == [row["client"] for row in rows if row["queued"]]
    assert seen["outside"] == [row["client"] for row in rows if row["theirs"] == "SYN-SENT"]
    assert seen["held"] == kernel["descriptors"]
    agree_on_buffers(seen["bars"], rows)
    agree_on_epoll(seen, kernel.get("epoll", []))
    told = [text for text in seen["clients"] if re.match("said|heard", text)]
    assert told == [
        f"{verb} {spoken(one[verb])}"
        for one in step["clients"]
        for verb in ("said", "heard")
        if one[verb] != "b''"
    ]


def spoken(text):
    """Return what a client has said or heard as the page has it: of a long text its length."""
    long = re.search(r"\(([\d,]+ bytes)\)$", text)
    return long[1] if long else f"“{ast.literal_eval(text).decode()}”"


def agree_on_buffers(bars, rows):
    """A connection that the page tells nothing of has four empty buffers."""
    numbers = {row["client"]: dict(zip(BUFFERS, row["buffers"], strict=True)) for row in rows}
    for bar in bars:
        client, which, number = re.fullmatch(r"client (\d+): (.*), ([\d,]+) bytes?", bar).groups()
        assert numbers[int(client)].pop(which) == int(number.replace(",", ""))
    assert not any(any(left.values()) for left in numbers.values())


def agree_on_epoll(seen, rows):
    """A chip of the page reads "5", whose descriptor that is, and "IN", all in one."""
    ready = [(row["fd"], row["waits"]) for row in rows if row["ready"]]
    interest = [(row["fd"], row["waits"] or "no events") for row in rows]
    for shown, wanted in ((seen["interest"], interest), (seen["ready"], ready)):
        for text, (fd, waits) in zip(shown, wanted, strict=True):
            assert re.fullmatch(rf"{fd}(listening|\d+|){waits}", text)


# The file


def test_the_kept_page_shows_the_servers_as_they_are():
    again = "make it again: .venv/bin/python -m clients.trace"
    assert outdated(PAGE, PROGRAMS) == [], again


def test_a_server_that_has_changed_is_noticed(tmp_path):
    changed = tmp_path / "server.py"
    changed.write_text(PROGRAMS["03_epoll"].read_text().replace("EPOLLIN", "EPOLLPRI", 1))
    assert outdated(PAGE, PROGRAMS | {"03_epoll": changed}) == ["03_epoll"]
    assert outdated(PAGE, {"04_new": changed}) == ["04_new"]


def test_the_kept_page_is_what_its_parts_make_of_its_data():
    assert build(SHOWN) == PAGE


def test_the_page_is_one_small_file_that_asks_nothing_of_a_network():
    assert len(PAGE.encode()) < 600_000
    rest = DATA.sub("", PAGE)
    assert "default-src 'none'" in rest
    assert not re.search(r"https?:|//\w+\.|\bsrc=|\bhref=|url\(|@import|fetch\(|\beval\(", rest)


def test_no_text_of_a_program_ends_the_data():
    lines = ["</script><script>alert(1)</script>", "<!-- <script>", "# 已完成队列 & \\u003c"]
    data = SHOWN | {"programs": {"04_odd": {"sentence": "</style>", "lines": lines}}}
    page = build(data)
    assert data_of(page) == data
    assert page.count("</script>") == PAGE.count("</script>")


# The page in a browser


@in_a_browser
@pytest.mark.parametrize("name", PROGRAMS)
def test_walking_by_keys_shows_each_step_of_the_recording(browser, name):
    agree(browser.look(story="two", model=name, step=1), "two", name, 0)
    for index in range(1, len(SHOWN["recordings"]["two"][name])):
        browser.press("ArrowRight")
        agree(browser.look(), "two", name, index)
    browser.press("ArrowRight")  # there is no more
    browser.press("ArrowLeft")
    agree(browser.look(), "two", name, index - 1)


@in_a_browser
@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("story", SHOWN["stories"])
def test_a_link_shows_its_step(browser, story, name):
    for index in range(0, len(SHOWN["recordings"][story][name]), 7):
        agree(browser.look(story=story, model=name, step=index + 1), story, name, index)


@in_a_browser
def test_up_and_down_go_from_action_to_action(browser):
    found = SHOWN["recordings"]["full"]["03_epoll"]
    begins = [
        next(at for at, step in enumerate(found) if step["act"] == number)
        for number in range(len(SHOWN["stories"]["full"]["acts"]) + 1)
    ]
    browser.look(story="full", model="03_epoll", step=1)
    for begin in begins[1:]:
        browser.press("ArrowDown")
        agree(browser.look(), "full", "03_epoll", begin)
    browser.press("End")
    agree(browser.look(), "full", "03_epoll", len(found) - 1)
    browser.press("ArrowUp")  # first to the beginning of this one
    agree(browser.look(), "full", "03_epoll", begins[-1])
    browser.press("ArrowUp")
    agree(browser.look(), "full", "03_epoll", begins[-2])
    browser.press("Home")
    agree(browser.look(), "full", "03_epoll", 0)


@in_a_browser
def test_the_address_leads_to_a_step_and_follows_the_reader(browser):
    browser.value("location.hash = 'story=reset&model=02_threaded&step=7'")
    browser.until(lambda: browser.look()["where"].startswith("step 7 "))
    agree(browser.look(), "reset", "02_threaded", 6)
    browser.press("ArrowRight")
    wanted = "#story=reset&model=02_threaded&step=8"
    browser.until(lambda: browser.value("location.hash") == wanted)


@in_a_browser
def test_another_model_stays_at_the_same_action(browser):
    browser.look(story="silent", model="01_blocking", act=4)
    for model in ("03_epoll", "02_threaded"):
        browser.value(f"document.querySelector('[data-model=\"{model}\"]').click()")
        found = SHOWN["recordings"]["silent"][model]
        begin = next(at for at, step in enumerate(found) if step["act"] == 4)
        agree(browser.look(), "silent", model, begin)


@in_a_browser
def test_space_plays_and_stops(browser):
    browser.look(story="two", model="01_blocking", step=1)
    browser.press(" ")
    assert browser.value("document.getElementById('play').textContent") == "stop"
    browser.until(lambda: not browser.look()["where"].startswith("step 1 "))
    browser.press(" ")
    assert browser.value("document.getElementById('play').textContent") == "play"
    assert browser.value("timer") is None


@in_a_browser
def test_side_by_side_all_models_stand_after_the_same_action(browser):
    seen = browser.look(story="two", model="01_blocking", view="all", act=3)
    columns = dict(seen["columns"])
    assert list(columns) == list(PROGRAMS)
    for model, fates in columns.items():
        after = [step for step in SHOWN["recordings"]["two"][model] if step["act"] <= 3][-1]
        heard = [client["heard"] != "b''" for client in pooled(after)["clients"]]
        assert [fate == "served" for fate in fates] == heard
    assert columns["01_blocking"] != columns["03_epoll"]


ROW = {"client": 1, "theirs": "ESTABLISHED", "ours": "ESTABLISHED", "fd": 5, "queued": False}
OPEN = [  # what a row says, what of it is told of the client, and at the server's side
    ({}, "served", "descriptor 5ESTABLISHED"),
    ({"kept": 0}, "served", "descriptor 5ESTABLISHED"),
    (
        {"kept": 2083},
        "served in part",
        "descriptor 5ESTABLISHEDin the program: 2,083",
    ),
    (
        {"buffers": [1, 20, 300, 4000], "kept": 50000},
        "served in part",
        "descriptor 5ESTABLISHEDin the program: 50,000",
    ),
    ({"queued": True, "fd": None}, "in the accept queue", "in the queueESTABLISHED"),
    (
        {"theirs": "SYN-SENT", "ours": None, "fd": None},
        "not connected yet (SYN-SENT)",
        "no socket",
    ),
]


@in_a_browser
def test_what_is_open_of_a_client_is_told(tmp_path):
    rows = [ROW | {"buffers": [0, 0, 0, 0]} | more for more, _, _ in OPEN]
    client = {"client": 1, "said": "b'ann'", "heard": "b'Hi'", "left": ""}
    kernels = [
        {"queue": 0, "limit": 6, "connections": [at], "descriptors": []} for at in range(len(rows))
    ]
    step = {"act": 0, "kind": "time", "sentence": "Time passes.", "threads": 0, "clients": 1}
    data = {
        "programs": {"04_mine": {"sentence": "A server.", "lines": ["pass"]}},
        "stories": {"two": {"title": "Two", "question": "Who?", "acts": []}},
        "pool": [[], [2], client, *rows, *kernels],
    }
    for kernel in kernels:
        kernel["connections"] = [kernel["connections"][0] + 3]
    walk = [step | {"kernel": 3 + len(rows) + at} for at in range(len(rows))]
    page = tmp_path / "page.html"
    page.write_text(build(data | {"recordings": {"two": {"04_mine": walk}}}))
    with opened(page.as_uri(), Reader) as browser:
        for number, (_, fate, ours) in enumerate(OPEN, 1):
            browser.value(f"read('step={number}')")
            assert browser.value("document.querySelector('#clients .fate').textContent") == fate
            assert browser.value("document.querySelector('#kernel .ours').textContent") == ours


@in_a_browser
def test_bytes_in_the_kernels_are_counted_once_while_send_hands_them_on(browser):
    walk = SHOWN["recordings"]["full"]["03_epoll"]
    gone = next(
        at for at, step in enumerate(walk) if step["sentence"].startswith("send() hands 83")
    )
    come = " (83 more bytes in the kernels)"
    for index, more in ((gone - 1, ""), (gone, come), (gone + 2, come)):
        browser.look(story="full", model="03_epoll", step=index + 1)
        notes = browser.value("[...document.querySelectorAll('#clients li:first-child small')]"
                              ".map((note) => note.textContent)")  # fmt: skip
        assert notes == [" (5,372 bytes in the kernels)", more]


@in_a_browser
def test_only_what_has_come_is_amber_in_a_bar(browser):
    walk = SHOWN["recordings"]["full"]["03_epoll"]
    part = next(at for at, step in enumerate(walk) if step["sentence"].startswith("send() takes"))
    browser.look(story="full", model="03_epoll", step=part + 1)
    style = "getComputedStyle(document.querySelector('#kernel .bar{}'))"
    ground = [
        browser.value(f"{style.format(one)}.backgroundColor") for one in (".fresh", ":not(.fresh)")
    ]
    assert ground[0] == ground[1]
    fill = browser.value(f"{style.format('.fresh i')}.backgroundImage")
    assert f"{100 * (4187 - 948) / 4187:.4f}" in fill  # in percent, where amber begins


@in_a_browser
@pytest.mark.parametrize("size", [(390, 844), (1280, 720), (1280, 800), (1920, 1080)])
def test_no_text_runs_over_the_border_of_a_client_s_card(browser, size):
    browser.look(story="full", model="03_epoll", step=1)
    wide = """() => { step(1); return [...document.querySelectorAll("#clients li, #said")]
      .some((card) => card.scrollWidth > card.clientWidth + 1); }"""
    with browser.sized(*size):
        assert browser.value(f"steps().filter({wide}).length") == 0


@in_a_browser
def test_a_line_that_comes_next_is_seen_or_pointed_to(browser):
    pointers = []
    with browser.sized(1280, 720):
        for index in range(len(SHOWN["recordings"]["two"]["03_epoll"])):
            browser.look(story="two", model="03_epoll", step=index + 1)
            pointers.append(browser.value(POINTED))
    assert all(told == hidden for told, hidden in pointers)
    assert pointers[10] == [["42"], ["42"]]  # serve() calls accept_all()


@in_a_browser
@pytest.mark.parametrize("size", [(390, 844), (500, 701), (1280, 720)])
def test_walking_moves_the_panels_and_not_the_page(browser, size):
    with browser.sized(*size):
        for story, name in (("two", "02_threaded"), ("descriptors", "03_epoll")):
            browser.look(story=story, model=name, step=1)
            walk = f"() => {{ const off = {OFF}; step(1); return off.length || scrollY; }}"
            assert browser.value(f"steps().filter({walk})") == []
        browser.look(story="descriptors", model="03_epoll", step=77)
        with browser.sized(900, 500):
            browser.until(lambda: browser.value(OFF) == [])  # a resize comes with the next frame


@in_a_browser
def test_words_are_explained_by_keyboard(browser):
    browser.look(story="two", model="03_epoll", step=5)
    browser.value("document.getElementById('ask').focus()")
    browser.press(" ")
    assert browser.value("document.getElementById('words').open")
    browser.press("ArrowRight")  # reads on in the words
    assert browser.look()["where"].startswith("step 5 ")
    terms = browser.value("[...document.querySelectorAll('#words dt')].map((one) => one.innerText)")
    states = {
        row.get(end) for row in SHOWN["pool"] if "theirs" in row for end in ("theirs", "ours")
    }
    calls = {row["call"] for row in SHOWN["pool"] if "call" in row}
    assert {word for word in states | calls if word} <= set(terms)
    browser.value("document.querySelector('#words button').click()")
    assert not browser.value("document.getElementById('words').open")


@in_a_browser
def test_it_needs_no_other_file(browser):
    assert set(browser.asked) == {KEPT.as_uri()}
