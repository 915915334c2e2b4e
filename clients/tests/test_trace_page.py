"""The page of the steps: what a reader sees of the recordings in it, and how a reader moves."""

import functools
import itertools
import re
import urllib.parse
from xml.etree import ElementTree

import pytest

from clients.console.palette import MODELS, contrast
from clients.system.processes import models
from clients.tests.browser import Browser, in_a_browser, opened
from clients.tests.steps_page import DATA, bundle_of, outdated
from clients.trace.animated_svg import FRONT
from clients.trace.page import STEPS, build

PROGRAMS = {name: models()[name] for name in MODELS}
PAGE = STEPS.read_text()
SHOWN = bundle_of(PAGE)
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("the page of the steps")]
# What a reader sees, as plain data
LOOK = """(() => {
  const texts = (query, root = document) =>
    [...root.querySelectorAll(query)].map((part) => part.textContent.trim());
  const label = (part) => part.ariaLabel;
  return {
    where: texts("#where")[0], sentence: texts("#sentence")[0], actor: texts("#actor")[0],
    model: texts("#models [aria-pressed=true]")[0],
    end: texts("#end:not([hidden])")[0], keys: texts("#keys button:not([hidden]) kbd"),
    executed: texts("#source [aria-current] .number").map(Number),
    did: [...document.querySelectorAll("#source .did")].map(label),
    marks: [...document.querySelectorAll("#source .mark:not(.did)")].map(
      (mark) => [Number(mark.closest("li").querySelector(".number").textContent), label(mark)]),
    threads: texts("#threads summary"), changed: texts("#threads dt.changed"),
    variables: Object.fromEntries([...document.querySelectorAll("#threads [open] dt")].map(
      (name) => [name.textContent, name.nextSibling.textContent])),
    queue: texts("#kernel .queue h3 b")[0],
    queued: texts("#kernel .queue .places .client").map(Number),
    outside: texts("#kernel .syn .client").map(Number),
    bars: [...document.querySelectorAll("#kernel .bar")].map(label),
    ends: texts("#kernel .end"),
    interest: texts("#kernel .interest .chip"), ready: texts("#kernel .list .chip"),
    descriptors: texts("#kernel .held .chip"),
    clients: texts("#clients li p"),
    columns: Object.fromEntries([...document.querySelectorAll(".column")].map(
      (column) => [label(column), texts(".clients li .status", column)])),
  };
})()"""
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
# Of every fifth step of what is shown: its number, and what the page says
SOME = """steps().map((_, index) => index).filter((index) => index % 5 === 0).map((index) => {
  go({ step: index });
  const seen = LOOK;
  return [index, seen.where, seen.sentence, seen.queue, seen.descriptors.length, seen.bars];
})""".replace("LOOK", LOOK)

# Of texts in sight [text, its colour, one behind it], of marks [mark, its edge, what is around it]
COLOURS = """(() => {
  const style = (part) => getComputedStyle(part);
  const isClear = (colour) => /^rgba\\(.*, 0\\)$/.test(colour);
  const ground = (part) => isClear(style(part).backgroundColor) && part.parentElement
    ? ground(part.parentElement) : style(part).backgroundColor;
  const filled = (part) => part?.offsetWidth ? [style(part).backgroundColor,
    ...(style(part).backgroundImage.match(/rgb\\([^)]*\\)/g) ?? [])] : [];
  const found = new Set();
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const part = texts.currentNode.parentElement;
    if (!texts.currentNode.textContent.trim() || !part.checkVisibility()) continue;
    if (part.closest("option, script")) continue;
    for (const behind of [ground(part), ...filled(part.closest(".bar")?.querySelector("i"))]) {
      if (!isClear(behind)) found.add(JSON.stringify(["text", style(part).color, behind]));
    }
  }
  for (const mark of document.querySelectorAll(".mark, .client, .status, .chip.ready")) {
    if (style(mark).borderTopStyle === "none" || !mark.checkVisibility()) continue;
    const around = ground(mark.parentElement);
    found.add(JSON.stringify(["mark", style(mark).borderTopColor, around]));
  }
  const parts = [...document.querySelectorAll("body *")];
  const isOpaque = parts.every((part) => style(part).opacity === "1");
  return [isOpaque, [...found].map((one) => JSON.parse(one))];
})()"""


class Reader(Browser):
    """A browser that returns what a reader of this page sees."""

    def __init__(self, orders, answers, address):
        super().__init__(orders, answers, address)
        self.until(lambda: self.value("location.hash"))  # which the page sets when it is drawn

    def look(self, **place):
        """Return what a reader sees; place: parts of the link that is opened first."""
        if place:
            self.value(f"read({urllib.parse.urlencode(place)!r})")
        return self.value(LOOK)

    def button(self, key):
        """Return what the button of a key says."""
        return self.value(f"""document.querySelector('[data-key="{key}"] span').textContent""")

    def each(self, places, expression):
        """Return the values of an expression at each of some places, parts of a link."""
        for place in places:
            self.value(f"read({urllib.parse.urlencode(place)!r})")
            yield place, self.value(expression)


@pytest.fixture(scope="module")
def browser():
    with opened(STEPS.as_uri(), Reader) as found:
        yield found


def step_of(scenario, model, words):
    """Return the number of the first step whose sentence begins with words."""
    events = SHOWN["recordings"][scenario][model]
    return next(at for at, one in enumerate(events, 1) if one["sentence"].startswith(words))


# The file


def test_the_committed_page_shows_the_servers_as_they_are():
    again = "make it again: .venv/bin/python -m clients.trace"
    assert outdated(PAGE, PROGRAMS) == [], again


def test_a_server_that_has_changed_is_noticed(tmp_path):
    changed = tmp_path / "server.py"
    changed.write_text(PROGRAMS["03_epoll"].read_text().replace("EPOLLIN", "EPOLLPRI", 1))
    assert outdated(PAGE, PROGRAMS | {"03_epoll": changed}) == ["03_epoll"]
    assert outdated(PAGE, {"04_new": changed}) == ["04_new"]


def test_the_committed_page_is_what_its_parts_make_of_its_data():
    page = build(SHOWN)
    assert bundle_of(page) == SHOWN  # compressed bytes may differ: there are several zlibs
    assert DATA.sub("", page) == DATA.sub("", PAGE)


def test_the_page_is_one_small_file_that_asks_nothing_of_a_network():
    assert len(PAGE.encode()) < 200_000
    rest = DATA.sub("", PAGE)
    assert "default-src 'none'" in rest
    assert not re.search(r"https?:|//\w+\.|\bsrc=|\bhref=|url\(|@import|fetch\(|\beval\(", rest)


def test_no_text_of_a_program_ends_the_data():
    lines = ["</script><script>alert(1)</script>", "<!-- <script>", "# 全连接队列 & \\u003c"]
    bundle = SHOWN | {"programs": {"04_odd": {"sentence": "</style>", "lines": lines}}}
    page = build(bundle)
    assert bundle_of(page) == bundle
    assert page.count("</script>") == PAGE.count("</script>")


# The page in a browser


@in_a_browser
def test_a_step_is_seen_in_the_program_the_thread_the_kernel_and_the_clients(browser):
    step = step_of("two", "03_epoll", "recv() returns b'bob'")
    seen = browser.look(scenario="two", model="03_epoll", step=step)
    line = next(at for at, text in enumerate(SHOWN["programs"]["03_epoll"]["lines"], 1)
                if "client.conn.recv(1024)" in text)  # fmt: skip
    assert seen["where"] == f"step {step} of {len(SHOWN['recordings']['two']['03_epoll'])}"
    assert (seen["model"], seen["actor"]) == ("03_epoll", "main")
    assert seen["sentence"].startswith("recv() returns b'bob': 3 bytes move from")
    assert seen["executed"] == [line]
    assert seen["did"] == ["main has executed it"]
    assert seen["marks"] == [[line + 1, "main next here"]]
    assert seen["threads"] == [f"mainnext: line {line + 1}"]
    assert seen["changed"] == ["chunk"]
    assert seen["variables"]["chunk"] == "b'bob'"
    assert (seen["queue"], seen["queued"], seen["outside"]) == ("0 of 6", [], [])
    assert seen["descriptors"] == ["0in", "1out", "2err", "3listening", "4epoll", "51", "62"]
    assert seen["interest"] == ["3listeningIN", "51IN", "62IN"]
    assert seen["ready"] == []
    assert "client 2: server's receive buffer, 0 bytes" in seen["bars"]
    assert seen["clients"] == ["1silent", "2no answer yet", "sent “bob”"]
    before = browser.look(step=step - 1, scenario="two", model="03_epoll")
    assert before["ready"] == ["62IN"]
    assert "client 2: server's receive buffer, 3 bytes" in before["bars"]


@in_a_browser
def test_a_blocked_thread_a_new_thread_and_a_client_are_seen_as_such(browser):
    blocked = browser.look(scenario="two", model="02_threaded", step=7)
    assert blocked["threads"][0] == "mainblocked in accept4(3)"
    assert blocked["executed"] == []
    assert [19, "main blocked here"] in blocked["marks"]
    begins = browser.look(scenario="two", model="02_threaded", step=8)
    assert begins["actor"] == "thread of client 1"
    assert begins["executed"] == []
    connects = browser.look(scenario="two", model="02_threaded", action=2)
    assert connects["actor"] == "2"
    assert connects["queued"] == [2]
    assert connects["ends"][-1] == "in accept queueESTABLISHED"


@in_a_browser
def test_nine_clients_at_a_backlog_of_5(browser):
    seen = browser.look(scenario="nine", model="01_blocking", action=1)
    assert (seen["queue"], seen["queued"]) == ("6 of 6, full", [6, 5, 4, 3, 2, 1])
    assert seen["outside"] == [7, 8, 9]
    assert "not connected yet (SYN-SENT)" in " ".join(seen["clients"])
    whole = browser.look(scenario="nine", view="all", action=1)
    assert whole["columns"]["01_blocking"] == ["silent", "in the accept queue",
                                               "not connected yet (SYN-SENT)"]  # fmt: skip


@in_a_browser
@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("scenario", SHOWN["scenarios"])
def test_a_step_shows_its_sentence_and_the_kernels_numbers(browser, scenario, name):
    browser.look(scenario=scenario, model=name, step=1)
    events = SHOWN["recordings"][scenario][name]
    for index, where, sentence, queue, descriptors, bars in browser.value(SOME):
        event = events[index]
        kernel = event["kernel"]
        assert where == f"step {index + 1} of {len(events)}"
        assert sentence == event["sentence"] or event["skipped"]
        assert queue.startswith(f"{kernel['queue']} of {kernel['limit']}")
        assert descriptors == len(kernel["descriptors"])
        seen = sorted(int(re.search(r"([\d,]+) byte", bar)[1].replace(",", "")) for bar in bars)
        wanted = sorted(size for row in kernel["connections"] for size in row["buffers"])
        assert [size for size in seen if size] == [size for size in wanted if size]


@in_a_browser
def test_arrows_go_from_step_to_step_and_from_action_to_action(browser):
    events = SHOWN["recordings"]["full"]["03_epoll"]
    last = max(one["action"] for one in events)
    begins = [
        next(at for at, one in enumerate(events, 1) if one["action"] == action)
        for action in range(last + 1)
    ]

    def number(key):
        browser.press(key)
        return int(browser.look()["where"].split()[1])

    browser.look(scenario="full", model="03_epoll", step=1)
    assert [number("ArrowRight"), number("ArrowRight"), number("ArrowLeft")] == [2, 3, 2]
    assert number("Home") == 1
    assert [number("ArrowDown") for _ in begins[1:]] == begins[1:]
    assert [number("End"), number("ArrowRight")] == [len(events)] * 2  # there is no more
    assert number("ArrowUp") == begins[-1]  # first to the beginning of this action
    assert number("ArrowUp") == begins[-2]


@in_a_browser
def test_the_address_leads_to_a_step_and_follows_the_reader(browser):
    browser.value("location.hash = 'scenario=reset&model=02_threaded&step=7'")
    browser.until(lambda: browser.look()["where"].startswith("step 7 "))
    assert browser.look()["model"] == "02_threaded"
    browser.press("ArrowRight")
    wanted = "#scenario=reset&model=02_threaded&step=8"
    browser.until(lambda: browser.value("location.hash") == wanted)


@in_a_browser
def test_another_model_stays_at_the_same_action(browser):
    browser.look(scenario="silent", model="01_blocking", action=4)
    for model in ("03_epoll", "02_threaded"):
        browser.value(f"document.querySelector('[data-model=\"{model}\"]').click()")
        seen = browser.look()
        assert seen["model"] == model
        assert seen["sentence"].startswith("Client 2 sends b'bob'")


@in_a_browser
def test_space_plays_and_stops(browser):
    browser.look(scenario="two", model="01_blocking", step=1)
    browser.press(" ")
    assert browser.button(" ") == "stop"
    browser.until(lambda: not browser.look()["where"].startswith("step 1 "))
    browser.press(" ")
    assert browser.button(" ") == "play"
    assert browser.value("timer") is None


@in_a_browser
def test_speed_changes_how_long_a_step_stays(browser):
    browser.look(scenario="two", model="01_blocking", step=1)
    waits = []
    for speed in (1, 2, 4, 0.5):
        assert browser.button("s")[:-1] == f"speed {speed}"
        waits.append(browser.value("readingTime()"))
        browser.press("s")
    assert browser.button("s")[:-1] == "speed 1"
    assert [wait / waits[0] for wait in waits] == [1, 0.5, 0.25, 2]


@in_a_browser
def test_c_goes_to_the_next_step_with_a_system_call(browser):
    events = SHOWN["recordings"]["two"]["03_epoll"]
    wanted = [at for at, event in enumerate(events, 1) if event["calls"]]
    browser.look(scenario="two", model="03_epoll", step=1)
    found = []
    for _ in wanted:
        browser.press("c")
        found.append(browser.value("HERE.step + 1"))
    assert found == wanted
    browser.press("c")  # there is no more
    assert browser.value("HERE.step + 1") == wanted[-1]


@in_a_browser
def test_a_vote_asks_before_it_shows(browser):
    before = browser.look(scenario="two", view="all", action=2)
    browser.press("v")
    asked = browser.look()
    assert asked["sentence"] == "Client 2 sends bob: what does each server do?"
    assert asked["columns"] == before["columns"]
    browser.press("v")
    shown = browser.look()
    assert shown["sentence"].startswith("Client 2: in the accept queue")
    assert shown["columns"]["03_epoll"] == ["silent", "served"]
    browser.press("v")
    browser.press("ArrowLeft")  # without an answer
    assert browser.look()["sentence"] == before["sentence"]
    one = browser.look(scenario="two", model="03_epoll", step=1)
    browser.press("v")
    asked = browser.look()
    assert asked["sentence"] == "What comes next?"
    assert (asked["where"], asked["marks"]) == (one["where"], one["marks"])
    browser.press("v")
    assert browser.look()["where"].startswith("step 2 ")


@in_a_browser
def test_a_link_and_a_picture_can_be_taken_along(browser):
    browser.look(scenario="full", model="03_epoll", step=126)
    browser.value("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    browser.press("l")
    browser.until(lambda: browser.button("l") == "copied")
    assert browser.value("copied") == f"{STEPS.as_uri()}#scenario=full&model=03_epoll&step=126"
    browser.value("HTMLAnchorElement.prototype.click = function () { window.saved = this; }")
    with browser.sized(800, 600):
        browser.press("p")
        browser.until(lambda: browser.button("p") == "saved")
    assert browser.value("saved.download") == "full-03_epoll-126.png"
    browser.value("Object.assign(window, { image: new Image() }).image.src = saved.href")
    browser.until(lambda: browser.value("image.complete"))
    assert browser.value("[image.naturalWidth, image.naturalHeight]") == [1600, 1200]
    colours = """(() => {
      const paper = document.createElement("canvas").getContext("2d");
      Object.assign(paper.canvas, { width: 1600, height: 1200 });
      paper.drawImage(image, 0, 0);
      return new Set(new Uint32Array(paper.getImageData(0, 0, 1600, 1200).data.buffer)).size;
    })()"""
    assert browser.value(colours) > 50  # edges of letters have many


@in_a_browser
@pytest.mark.parametrize("view", ["one", "all"])
def test_each_key_is_a_button_in_one_line(browser, view):
    with browser.sized(1280, 720):
        keys = browser.look(scenario="two", model="03_epoll", step=1, view=view)["keys"]
        places = browser.value("""[...document.querySelectorAll("#keys button:not([hidden])")].map(
            (part) => [part.getBoundingClientRect().top, part.getBoundingClientRect().right])""")
    assert len({top for top, _ in places}) == 1
    assert places[-1][1] <= 1280
    wanted = browser.value("Object.values(KEYS).map((one) => one[0])")
    assert set(wanted) - set(keys) == (set() if view == "one" else {"↑", "↓", "c"})
    browser.value("document.querySelector('[data-key=ArrowRight]').click()")
    where = "step 2 " if view == "one" else "action 1 "
    assert browser.look()["where"].startswith(where)


@in_a_browser
def test_a_scenario_ends_with_its_question_and_the_answer(browser):
    for name, scenario in SHOWN["scenarios"].items():
        for place in ({"view": "all", "action": 99}, {"view": "one", "step": 999}):
            seen = browser.look(scenario=name, model="02_threaded", **place)
            assert seen["end"] == scenario["question"] + scenario["answer"]
            browser.press("ArrowLeft")
            assert browser.look().get("end") is None


@in_a_browser
@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080)])
def test_side_by_side_the_sentence_is_large_and_nothing_is_cut(browser, size):
    places = [
        {"scenario": name, "view": "all", "action": number}
        for name, scenario in SHOWN["scenarios"].items()
        for number in range(1, len(scenario["actions"]) + 1)
    ]
    seen = """(() => {
      const size = (part) => parseFloat(getComputedStyle(part).fontSize);
      const rem = size(document.documentElement);
      const sizes = (query) => [...document.querySelectorAll(query)].filter(
        (part) => part.checkVisibility()).map((part) => size(part) / rem);
      const all = byId("all");
      const cut = [...all.querySelectorAll("code, .bar, .end, h3")].filter(
        (part) => part.scrollWidth > part.clientWidth + 1);
      return [byId("sentence").textContent, sizes("#sentence")[0],
        Math.min(...sizes(".column .status, .column code")),
        all.scrollHeight - all.clientHeight, cut.map((part) => part.outerHTML)];
    })()"""
    with browser.sized(*size):
        for place, (sentence, large, least, over, cut) in browser.each(places, seen):
            assert is_difference_true(sentence, place["scenario"], place["action"])
            assert large >= 1.5
            assert least >= (0.9 if place["scenario"] == "two" else 0.7)  # of 16 pixels at 1280
            assert (over <= 0, cut) == (True, []), place


def is_true_of(text, event, client):
    """Return whether a client is in a state, named as the page names it, after an event."""
    one = next(one for one in event["clients"] if one["client"] == client)
    row = next(row for row in event["kernel"]["connections"] if row["client"] == client)
    is_answered, has_asked = one["received"] != "b''", one["sent"] != "b''"
    facts = {
        "left": one["left"] == "left" and (is_answered or not has_asked),
        "left unserved": one["left"] == "left" and not is_answered,
        "reset": one["left"] == "reset",
        "does not read": True,  # not yet in the recorded state
        "not connected yet (SYN-SENT)": row["client_state"] == "SYN-SENT",
        "in the accept queue": row["queued"],
        "served in part": is_answered and (row["in_program"] or any(row["buffers"])),
        "served": is_answered and not row["queued"],
        "no answer yet": has_asked and not is_answered and row["fd"] is not None,
        "accepted": not has_asked and row["fd"] is not None,
    }
    return facts[text]


def numbers(text):
    """Return [1, 2, 3, 5] for "1-3, 5", with a dash as in a range."""
    ends = [list(map(int, part.split("\u2013"))) for part in text.split(", ")]
    return [one for end in ends for one in range(end[0], end[-1] + 1)]


def is_difference_true(sentence, scenario, action):
    """Return whether a sentence is true of all models after an action, and names each of them."""
    recordings = SHOWN["recordings"][scenario]
    was, now = (
        {name: [one for one in events if one["action"] <= number][-1]
         for name, events in recordings.items()}
        for number in (action - 1, action)
    )  # fmt: skip
    if same := re.fullmatch(r"The same with all servers: (.*)\.", sentence):
        groups = re.findall(
            r"clients? ([\d\u2013]+(?:, [\d\u2013]+)*) ([a-z].*?)(?=, client|$)", same[1]
        )
        assert sum(len(numbers(who)) for who, _ in groups) == len(now["03_epoll"]["clients"])
        return all(
            is_true_of(text, event, client)
            for who, text in groups
            for client in numbers(who)
            for event in now.values()
        )
    who, clauses = re.fullmatch(r"Clients? ([\d\u2013, ]+): (.*)\.", sentence).groups()
    named = []
    for clause in clauses.split("; "):
        when, text, names, call = re.fullmatch(
            r"(only now |already )?(.*?) with (.*?)(?: \(blocked in (\w+)\(\d*\)\))?", clause
        ).groups()
        for name in re.split(", | and ", names):
            named.append(name)
            if call and [thread["call"] for thread in now[name]["threads"]] != [call]:
                return False
            for client in numbers(who):
                if not is_true_of(text, now[name], client):
                    return False
                if when and is_true_of(text, was[name], client) != (when == "already "):
                    return False
    return sorted(named) == sorted(now)


def test_a_sentence_with_two_models_in_the_wrong_place_is_found():
    right = "Client 2: in the accept queue with {} (blocked in recvfrom(4)); served with {} and {}."
    names = list(MODELS)
    assert is_difference_true(right.format(*names), "two", 3)
    assert not is_difference_true(right.format(*names[::-1]), "two", 3)
    later = "Client 2: only now served with {}; already served with {} and {}."
    assert is_difference_true(later.format(*names), "two", 4)
    assert not is_difference_true(later.format(*names[::-1]), "two", 4)
    same = "The same with all servers: client 1 accepted, client 2 served."
    assert not is_difference_true(same, "two", 3)


@in_a_browser
def test_side_by_side_all_models_are_shown_after_the_same_action(browser):
    seen = browser.look(scenario="two", model="01_blocking", view="all", action=3)
    assert seen["columns"] == {
        "01_blocking": ["silent", "in the accept queue"],
        "02_threaded": ["silent", "served"],
        "03_epoll": ["silent", "served"],
    }
    assert seen["where"] == "action 3 of 5"


ROW = {"client": 1, "client_state": "ESTABLISHED", "server_state": "ESTABLISHED", "fd": 5}
ROW |= {"queued": False, "in_program": 0, "buffers": [0, 0, 0, 0]}
STATES = [  # of a connection; what is said of the client, and at the server's end
    ({}, "served", "descriptor 5ESTABLISHED"),
    (
        {"in_program": 2083},
        "served in part",
        "descriptor 5ESTABLISHEDin the program: 2,083",
    ),
    (
        {"buffers": [1, 20, 300, 4000], "in_program": 50000},
        "served in part",
        "descriptor 5ESTABLISHEDin the program: 50,000",
    ),
    ({"queued": True, "fd": None}, "in the accept queue", "in accept queueESTABLISHED"),
    (
        {"client_state": "SYN-SENT", "server_state": None, "fd": None},
        "not connected yet (SYN-SENT)",
        "no socket",
    ),
]


@in_a_browser
def test_the_state_of_a_client_and_of_its_connection(tmp_path):
    client = {"client": 1, "sent": "b'ann'", "received": "b'Hi'", "left": ""}
    step = SHOWN["recordings"]["two"]["01_blocking"][0] | {"clients": [client]}
    events = [
        step | {"kernel": step["kernel"] | {"connections": [ROW | more]}} for more, *_ in STATES
    ]
    bundle = {
        "programs": {"04_mine": {"sentence": "A server.", "lines": ["pass"]}},
        "scenarios": {"two": {"title": "Two", "question": "Why?", "actions": []}},
        "recordings": {"two": {"04_mine": events}},
    }
    page = tmp_path / "page.html"
    page.write_text(build(bundle))
    with opened(page.as_uri(), Reader) as browser:
        for number, (_, status, ours) in enumerate(STATES, 1):
            browser.value(f"read('step={number}')")
            assert browser.value("document.querySelector('#clients .status').textContent") == status
            end = "document.querySelector('#kernel .server-end').textContent"
            assert browser.value(end) == ours


@in_a_browser
def test_bytes_of_a_partly_sent_reply_are_in_one_place_only(browser):
    part = step_of("full", "03_epoll", "send() hands 948 of 1,031 bytes")
    seen = browser.look(scenario="full", model="03_epoll", step=part)
    assert seen["ends"][-1].endswith("in the program: 83")
    rest = step_of("full", "03_epoll", "send() hands all 83 bytes")
    notes = (
        "[...document.querySelectorAll('#clients li:first-child small')]"
        ".map((note) => note.textContent)"
    )
    for step, end, more in ((rest - 1, "in the program: 83", ""), (rest, "ESTABLISHED", "83 more")):
        ends = browser.look(scenario="full", model="03_epoll", step=step)["ends"]
        assert any(text.endswith(end) for text in ends)
        assert more in browser.value(notes)[1]


@in_a_browser
def test_only_what_has_arrived_is_amber_in_a_bar(browser):
    part = step_of("full", "03_epoll", "send() hands 948 of 1,031 bytes")
    browser.look(scenario="full", model="03_epoll", step=part)
    style = "getComputedStyle(document.querySelector('#kernel .bar{}'))"
    ground = [
        browser.value(f"{style.format(one)}.backgroundColor")
        for one in (".changed", ":not(.changed)")
    ]
    assert ground[0] == ground[1]
    fill = browser.value(f"{style.format('.changed i')}.backgroundImage")
    buffers = SHOWN["recordings"]["full"]["03_epoll"][part - 1]["kernel"]["connections"][0][
        "buffers"
    ]
    assert f"{100 * (buffers[2] - 948) / buffers[2]:.4f}" in fill  # in percent, where amber begins


@in_a_browser
@pytest.mark.parametrize("size", [(390, 844), (1280, 720), (1280, 800), (1920, 1080)])
def test_no_text_runs_over_the_border_of_a_client_s_card(browser, size):
    browser.look(scenario="full", model="03_epoll", step=1)
    wide = """() => { step(1); return [...document.querySelectorAll("#clients li, #narration")]
      .some((card) => card.scrollWidth > card.clientWidth + 1); }"""
    with browser.sized(*size):
        assert browser.value(f"steps().filter({wide}).length") == 0


@in_a_browser
def test_a_line_that_comes_next_is_seen_or_pointed_to(browser):
    browser.look(scenario="two", model="03_epoll", step=1)
    with browser.sized(1280, 720):
        each = f"steps().map((_, index) => {{ go({{ step: index }}); return {POINTED}; }})"
        pointers = browser.value(each)
    assert all(pointed == hidden for pointed, hidden in pointers)
    called = SHOWN["recordings"]["two"]["03_epoll"][10]  # serve() calls accept_all()
    assert pointers[10] == [[str(called["next_line"])]] * 2


@in_a_browser
@pytest.mark.parametrize("size", [(390, 844), (500, 701), (1280, 720)])
def test_a_move_scrolls_the_panels_and_not_the_page(browser, size):
    with browser.sized(*size):
        for scenario, name in (("two", "02_threaded"), ("descriptors", "03_epoll")):
            browser.look(scenario=scenario, model=name, step=1)
            move = f"() => {{ const off = {OFF}; step(1); return off.length || scrollY; }}"
            assert browser.value(f"steps().filter({move})") == []
        browser.look(scenario="descriptors", model="03_epoll", step=77)
        with browser.sized(900, 500):
            browser.until(lambda: browser.value(OFF) == [])  # a resize comes with the next frame


@in_a_browser
@pytest.mark.parametrize("name", PROGRAMS)
def test_code_keeps_its_indentation_and_is_not_wrapped(browser, name):
    browser.look(scenario="two", model=name, step=1)
    with browser.sized(1280, 720):
        lines = browser.value("""[...document.querySelectorAll("#source code")].map((code) => {
          const range = new Range();
          range.selectNodeContents(code);
          const size = parseFloat(getComputedStyle(code).fontSize);
          const ends = [...range.getClientRects()].map((one) => Math.round(one.bottom / size));
          const more = [...new Set(ends)].slice(1);
          return [range.getBoundingClientRect().left, more.length, size];
        })""")
    texts = SHOWN["programs"][name]["lines"]
    places = {len(text) - len(text.lstrip()): line[0]
              for text, line in zip(texts, lines, strict=True) if text}  # fmt: skip
    steps = [(b - a) / (n - m) for (m, a), (n, b) in itertools.pairwise(sorted(places.items()))]
    assert len(steps) >= 3
    assert max(steps) - min(steps) < 0.1  # pixels per letter
    assert min(steps) > 0.55 * lines[0][2]
    assert [text for text, line in zip(texts, lines, strict=True) if line[1]] == []


@in_a_browser
@pytest.mark.parametrize("size", [(390, 844), (900, 700), (1280, 720)])
def test_numbers_of_bytes_are_not_cut(browser, size):
    cut = """(() => {
      const right = (part) => part.getBoundingClientRect().right;
      return [...document.querySelectorAll(".bar.filled b")].filter(
        (number) => right(number) > right(number.closest(".bar"))).length;
    })()"""
    with browser.sized(*size):
        for name in PROGRAMS:
            browser.look(scenario="full", model=name, step=1)
            each = f"steps().map((_, step) => {{ go({{ step }}); return {cut}; }})"
            assert not any(browser.value(each))
        places = [{"scenario": "full", "view": "all", "action": action} for action in range(1, 9)]
        assert not any(found for _, found in browser.each(places, cut))


@in_a_browser
@pytest.mark.parametrize("scenario", ["two", "full", "nine"])
def test_on_a_phone_what_changes_in_the_kernel_is_seen_without_scrolling(browser, scenario):
    hidden = """(() => {
      const place = (part) => part.getBoundingClientRect();
      const list = place(byId("kernel"));
      const top = Math.max(place(byId("narration")).bottom, list.top) - 1;
      const end = Math.min(place(document.querySelector("footer")).top, list.bottom) + 1;
      return [...document.querySelectorAll("#kernel .changed")].filter((part) => {
        return part.checkVisibility() && (place(part).top < top || place(part).bottom > end);
      }).map((part) => HERE.step + ": " + part.textContent);
    })()"""
    with browser.sized(390, 844):
        for name in PROGRAMS:
            browser.look(scenario=scenario, model=name, step=1)
            each = (
                f"steps().slice(0, -1).flatMap((_, step) => {{ go({{ step }}); return {hidden}; }})"
            )
            assert browser.value(each) == []
            assert browser.value("scrollY") == 0


@in_a_browser
def test_a_swipe_turns_to_another_model(browser):
    def swipe(start, end):
        for kind, x in (
            ("touchStart", start),
            ("touchMove", (start + end) / 2),
            ("touchMove", end),
        ):
            browser.call("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": x, "y": 300}])
        browser.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        return browser.look()

    with browser.sized(390, 844):
        before = browser.look(scenario="two", model="01_blocking", action=3)
        browser.until(lambda: browser.value("innerWidth") == 390)
        found = [
            swipe(300, 100),
            swipe(300, 100),
            swipe(300, 100),
            swipe(100, 300),
            swipe(200, 190),
        ]
    assert [one["model"] for one in found] == [
        "02_threaded", "03_epoll", "03_epoll", "02_threaded", "02_threaded"
    ]  # fmt: skip
    sentences = [one["sentence"] for one in [before, *found]]
    assert all(sentence.startswith("Client 2 sends b'bob'") for sentence in sentences)


def in_hex(colour):
    return "#" + "".join(f"{int(part):02X}" for part in re.findall(r"[\d.]+", colour)[:3])


@in_a_browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_texts_and_marks_have_contrast(browser, theme):
    theme = [{"name": "prefers-color-scheme", "value": theme}]
    browser.call("Emulation.setEmulatedMedia", features=theme)
    places = [
        {"scenario": "full", "model": name, "action": number}
        for name in MODELS
        for number in (4, 8)
    ]
    places += [{"scenario": name, "view": "all", "action": 3} for name in ("two", "full", "nine")]
    found = set()
    for place, (opaque, colours) in browser.each(places, COLOURS):
        assert opaque, place
        found |= {tuple(one) for one in colours}
    browser.value("document.getElementById('words').showModal()")
    found |= {tuple(one) for one in browser.value(COLOURS)[1]}
    browser.value("document.getElementById('words').close()")
    browser.call("Emulation.setEmulatedMedia", features=[])
    assert {kind for kind, *_ in found} == {"text", "mark"}
    least = {"text": 4.5, "mark": 3}  # WCAG 2.2, 1.4.3 and 1.4.11
    ratios = {one: contrast(*map(in_hex, one[1:])) for one in found}
    assert {one: ratio for one, ratio in ratios.items() if ratio < least[one[0]]} == {}


@in_a_browser
def test_words_are_explained_by_keyboard(browser):
    browser.look(scenario="two", model="03_epoll", step=5)
    browser.value("document.getElementById('ask').focus()")
    browser.press(" ")
    assert browser.value("document.getElementById('words').open")
    browser.press("ArrowRight")  # stays in the words
    assert browser.look()["where"].startswith("step 5 ")
    terms = browser.value("[...document.querySelectorAll('#words dt')].map((one) => one.innerText)")
    events = [
        event
        for recording in SHOWN["recordings"].values()
        for events in recording.values()
        for event in events
    ]
    used = {thread["call"] for event in events for thread in event["threads"]}
    for event in events:
        for row in event["kernel"]["connections"]:
            used |= {row["client_state"], row["server_state"]}
    assert used - {None} <= set(terms)
    browser.value("document.querySelector('#words button').click()")
    assert not browser.value("document.getElementById('words').open")


@in_a_browser
def test_it_needs_no_other_file(browser):
    loaded = {url for url in browser.requested_urls if not url.startswith("data:")}
    assert loaded == {STEPS.as_uri()}


# The moving picture


def parts_of(picture):
    """Return the <g> of an SVG that are visible for a time, and its style sheet."""
    root = ElementTree.fromstring(picture.read_text())
    return [one for one in root.iter(f"{SVG}g") if one.get("class")], root.find(f"{SVG}style").text


SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("picture", FRONT, ids=lambda file: file.stem)
def test_the_picture_begins_where_client_2_waits_in_one_queue_and_is_served_by_two(picture):
    groups, style = parts_of(picture)
    first = []
    for group in groups:
        name = group.get("class").split()[-1]
        frames = re.search(
            rf"@keyframes {name}{{(.*?)}}\.{name}{{.*? ([\d.]+)s infinite.*?-([\d.]+)s}}", style
        )
        phase = 100 * float(frames[3]) / float(frames[2])
        begin, end = map(
            float, re.search(r"([\d.]+)%{visibility:visible}([\d.]+)%", frames[1]).groups()
        )
        if begin <= phase < end:
            first.append(group)
    assert first == [one for one in groups if "still" in one.get("class").split()]
    texts = [text.strip() for group in first for text in group.itertext() if text.strip()]
    assert texts.count("in the queue") == 1
    assert texts.count("received Hello, bob") == 2
    assert texts.count("client 2 is served at once") == 2
    assert texts.count("client 2 waits") == 1


def fill_of(part, style):
    """Return the colour that fills a part of an SVG."""
    own = part.get("fill") or (re.search(r"fill:(#\w+)", part.get("style", "")) or [None, None])[1]
    rules = dict(re.findall(r"\.(\w+){fill:(#\w+)", style))
    tags = dict(re.findall(r"^(text|circle){[^}]*fill:(#\w+)", style, re.MULTILINE))
    named = [rules[name] for name in part.get("class", "").split() if name in rules]
    return own or (named or [tags.get(part.tag.removeprefix(SVG))])[0]


@functools.cache
def extent(part):
    """Return the numbers of a rectangle or a circle; those of the other kind are 0."""
    names = ("x", "y", "width", "height", "cx", "cy", "r")
    return [float(part.get(name, 0)) for name in names]


def covers(part, x, y):
    """Return whether a rectangle or a circle contains a point."""
    left, top, width, height, cx, cy, r = extent(part)
    is_in_rectangle = 0 <= x - left <= width and 0 <= y - top <= height
    return is_in_rectangle or (x - cx) ** 2 + (y - cy) ** 2 < r**2


def blended(over, under, opacity):
    pairs = [(int(over[at : at + 2], 16), int(under[at : at + 2], 16)) for at in (1, 3, 5)]
    return "#" + "".join(f"{round(a * opacity + b * (1 - opacity)):02X}" for a, b in pairs)


@pytest.mark.parametrize("picture", FRONT, ids=lambda file: file.stem)
def test_texts_of_the_picture_have_contrast(picture):
    groups, style = parts_of(picture)
    root = ElementTree.fromstring(picture.read_text())
    still = [part for part in root if part.tag in (f"{SVG}rect", f"{SVG}text")]
    ratios = {}
    for parts, first in [(still, 0), *(([*still, *group], len(still)) for group in groups)]:
        for at, text in enumerate(parts):
            if at < first or text.tag != f"{SVG}text":
                continue
            x, y = float(text.get("x")), float(text.get("y")) - 4
            behind = "#FFFFFF"
            for part in parts[:at]:
                if part.tag != f"{SVG}text" and covers(part, x + 1, y):
                    behind = blended(fill_of(part, style), behind, float(part.get("opacity", 1)))
            ratios[text.text] = min(
                contrast(fill_of(text, style), behind), ratios.get(text.text, 21)
            )
    assert len(ratios) > 30
    assert {text: ratio for text, ratio in ratios.items() if ratio < 4.5} == {}
