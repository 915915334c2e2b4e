"""What notebook 6 measures is what happens: counts and orders, no times."""

import pytest

from clients.system.processes import ROOT
from load_tests.harness.results import Percentile

# What draws, and what loads pandas, is imported by the one worker that runs these tests.
pytestmark = pytest.mark.xdist_group("labs")

DRIP = {"phases": [[1.5, 10]], "next_to": ["drip", 0.2]}
DEADLINE = ["    with conn:", "    conn.settimeout(0.3)\n    with conn:"]


@pytest.fixture(scope="session")
def pressure():
    from lab import pressure

    return pressure


@pytest.fixture(scope="session")
def charts():
    from load_tests.harness import charts

    return charts


@pytest.fixture(scope="module")
def visits(pressure):
    return pressure.run(
        "open_loop",
        {
            "one at a time": {
                "server": "01_blocking --wait 0.2",
                "phases": [[0.5, 20], [3, 0]],
                "timeout": 0.1,
                "retries": 1,
            },
            "with a slow client": {"server": "01_blocking", **DRIP},
            "with a deadline that it keeps": {
                "server": "01_blocking",
                "edits": [[DEADLINE[0], DEADLINE[1].replace("0.3", "30")]],
                **DRIP,
            },
            "with one that it does not keep": {
                "server": "01_blocking",
                "edits": [[DEADLINE[0], DEADLINE[1].replace("0.3", "0.05")]],
                **DRIP,
            },
        },
        together=True,
    )


def test_the_server_works_for_visitors_that_have_left(visits):
    latency = visits["one at a time"]["latency"]
    assert latency["session"].answered == 0
    assert latency["abandoned_greeting"].answered > 0
    assert latency["first_greeting"].asked == 2 * latency["session"].asked  # each tries twice


def test_the_samples_of_a_visitor_are_in_order(visits):
    for one in visits["with one that it does not keep"]["samples"]:
        assert 0 <= one.began <= one.ended
        assert float(one.session) == pytest.approx(one.began)


def test_only_a_deadline_that_is_too_short_for_a_slow_client_ends_it(visits):
    answered = {name: its["latency"]["session"].answered for name, its in visits.items()}
    assert answered["with a slow client"] == 0
    assert answered["with a deadline that it keeps"] == 0
    assert answered["with one that it does not keep"] > 0


def test_visitors_in_the_system_are_counted(visits):
    assert max(visits["with a slow client"]["in_system"]) > 1


def test_what_a_client_sees_depends_on_the_state_of_its_connection(pressure):
    case = {"server": "01_blocking", "visits": 20, "clients": 5}
    found = pressure.run("restart", {"end": case})["end"]
    assert found["seen"]["answered"] >= 40
    assert found["seen"]["reset"] + found["seen"].get("reset before it asked", 0) >= 3
    for (state, what), _ in found["table"]:
        assert what.startswith("reset") or state != "in the accept queue"


def test_a_handover_loses_nothing(pressure):
    server = f"{ROOT}/load_tests/alternatives/handover.py --control {{place}}/control"
    case = {"server": server, "visits": 100, "clients": 5, "new_first": True, "log": ""}
    found = pressure.run("restart", {"": case})[""]
    assert {*found["seen"]} == {"answered"}
    assert found["logged"] == found["seen"]["answered"]


def test_all_come_back_after_a_storm(pressure):
    case = {"count": 20, "limit": 30, "stay": True}
    found = pressure.run("storm", {"03_epoll": {"server": "03_epoll", **case}})["03_epoll"]
    assert len(found["times"]) == 20
    assert found["times"] == sorted(found["times"])


def test_an_edit_of_what_a_program_does_not_have_fails(pressure):
    with pytest.raises(RuntimeError, match="has no 'no such line'"):
        pressure.run("connected", {"": {"server": "03_epoll", "edits": [["no such line", ""]]}})


def test_goodput_and_latency_over_time_are_those_of_the_answers(visits):
    its = visits["with one that it does not keep"]
    at, rates = zip(*its["goodput"], strict=True)
    assert sum(rates) * (at[1] - at[0]) == pytest.approx(
        its["latency"]["session"].answered, rel=1e-4
    )
    assert [value is None for _, value in its["p50"]] == [rate == 0 for rate in rates]
    assert max(value or 0 for _, value in its["p50"]) <= its["latency"]["session"].max.ms


def test_a_run_without_an_answer_has_a_picture(charts, pressure):
    series = {"03_epoll": [(0.5, None)], "mine": [(0.5, 0.0), (1.0, 3.0)]}
    figure = charts.draw(5, 3, pressure.over_time(series, (0, 1), {"xlim": (0, 1)}))
    assert [text.get_text() for text in figure.axes[0].texts] == ["mine"]


@pytest.mark.parametrize("name", ["chat_threads", "chat_loop"])
def test_each_line_of_a_chat_is_delivered_to_all_that_read(pressure, name):
    server = f"{ROOT}/load_tests/alternatives/{name}.py"
    case = {"server": server, "clients": 5, "lines": 20, "log": ""}
    found = pressure.run("chat", {silent: case | {"silent": silent} for silent in (0, 1)})
    assert [one["delivered"] for one in found.values()] == [100, 100]
    assert [len(one["seconds"]) for one in found.values()] == [20, 20]


def test_a_lower_bound_has_an_arrow(charts, pressure):
    found = {"01_blocking": Percentile(900, exact=False), "03_epoll": Percentile(5, exact=True)}
    figure = charts.draw(5, 3, pressure.bars(found, "title"))
    texts = figure.axes[0].texts
    assert [text.get_text() for text in texts if text.get_text()] == ["5 ms", "≥ 900 ms"]
    assert sum(bool(getattr(text, "arrow_patch", None)) for text in texts) == 1
