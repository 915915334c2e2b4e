"""What tables and pictures say: the finding in the title, marks at lower bounds."""

import re
from dataclasses import asdict, replace

import pytest

from clients.console.formatting import count
from load_tests.harness import phrases, report, stats
from load_tests.harness.files import Screen
from load_tests.harness.results import FailedRun, Sample
from load_tests.harness.stats import Value
from load_tests.tests.made import comparison, run, sessions

# What draws is imported by the one worker that runs these tests.
pytestmark = pytest.mark.xdist_group("pictures")

NAMES = "01_blocking", "02_threaded", "03_epoll"


def text_of(table):
    console = Screen()
    with console.capture() as said:
        console.print(table)
    return said.get()


def table_of(found):
    return text_of(report.table(stats.summarise(found), wide=False))


@pytest.mark.parametrize(
    ("times", "finding"),
    [
        ([5000, 1.0, 3], "5 s with 01_blocking, 3 ms with 03_epoll, 1 ms with 02_threaded"),
        ([5000, 1.05, 1.0], "5 s with 01_blocking, about 1 ms with 02_threaded and 03_epoll"),
        ([5000, 1.0, 3, 2], "5 s with 01_blocking, 1 ms with 02_threaded"),
        ([2, 2, 2], "2 ms with 01_blocking, 02_threaded and 03_epoll"),
    ],
)
def test_a_title_names_no_winner_where_the_difference_is_noise(times, finding):
    values = {name: Value(ms, ms, ms) for name, ms in zip((*NAMES, "04_mine"), times, strict=False)}
    title = phrases.finding("First greeting: {}", "p50", values, width=200)
    assert title == f"First greeting: {finding}"


def test_a_title_says_how_many_were_unserved():
    many = sessions(4, "unanswered", 9) + [
        one._replace(session=f"b{one.session}") for one in sessions(1)
    ]
    found = comparison(run("01_blocking", many), *(run(name, sessions(1)) for name in NAMES[1:]))
    title = phrases.unserved(stats.summarise(found).heaviest, 200)
    assert title == (
        "Unserved: 9 of 10 visitors with 01_blocking, none with 02_threaded and 03_epoll"
    )


def test_the_legend_has_no_outcome_that_is_too_rare_to_be_seen():
    late = [one._replace(session="b") for one in sessions(0.1, "unanswered")]
    for served, words in ((500, ["greeted"]), (5, ["greeted", "too late"])):
        [axes] = drawings(run("03_epoll", sessions(0.001, count=served) + late), names=[0]).values()
        assert [text.get_text() for text in axes.get_legend().get_texts()] == words


def test_one_user_is_singular():
    config = comparison().config
    assert phrases.load_text(config, 1) == "1 user"
    assert phrases.load_text(config, 200) == "200 users"
    assert phrases.load_text(replace(config, loop="open"), 0.5) == "0.5 arrivals per second"
    assert count(1, "Locust process") == "1 Locust process"
    assert count(2, "Locust process") == "2 Locust processes"


def arrows(ax):
    return [text for text in ax.texts if getattr(text, "arrow_patch", None)]


def drawings(*runs, names=None):
    """Return the axes of these figures of a comparison, None: of its report and of its picture."""
    from load_tests.harness import charts, figures

    found = stats.summarise(comparison(*runs))
    named = figures.of_report(found) | dict(enumerate(figures.of_picture(found)))
    return {name: charts.draw(5, 4, named[name]).axes[0] for name in names or named}


def test_a_lower_bound_has_an_arrow_wherever_it_is_drawn():
    fast = sessions(0.001, count=2)
    names = "tail", "distribution", 1
    blocking = run("01_blocking", sessions(5, "unanswered")), run("01_blocking", sessions(5))
    bound, exact = (drawings(one, run("03_epoll", fast), names=names) for one in blocking)
    for name in names:
        assert (len(arrows(bound[name])), len(arrows(exact[name]))) == (1, 0)


def test_a_mark_is_hollow_where_a_run_is_generator_limited_and_the_picture_says_so():
    slow = run("03_epoll", sessions(1), limited="was 71 ms late")
    axes = drawings(run("03_epoll", sessions(1), load=1), slow, names=["tail"])["tail"]
    _, words = axes.get_legend_handles_labels()
    assert [word for word in words if "generator-limited" in word]
    summary = stats.summarise(comparison(slow))
    note = phrases.limits(summary.rows)
    assert note == (
        "* generator-limited: the load generator was 71 ms late, so the number is also its own."
    )
    assert "%" not in note  # 2 % of a core are not why
    assert re.search(r"03_epoll.*\*", table_of(comparison(slow)))


def test_the_spread_of_repeats_is_drawn_and_in_the_table():
    runs = [run("03_epoll", sessions(seconds), repeat=n) for n, seconds in enumerate((1, 2, 4))]
    found = comparison(*runs, repeats=3)
    assert "1.5-3" in " ".join(table_of(found).split())
    lines = drawings(*runs, names=["tail"])["tail"].lines
    assert any([round(y) for y in line.get_ydata()] == [1500, 3000] for line in lines)


def test_fewer_than_100_samples_have_a_maximum_and_no_p99():
    few, many = (table_of(comparison(run("a", sessions(0.013, count=n)))) for n in (25, 100))
    assert "max of 25" in " ".join(few.split())
    assert "n < 100" in " ".join(few.split())
    assert "max" not in many


def test_the_main_picture_shows_throughput_without_think_time_and_goodput_of_the_impatient():
    from load_tests.harness import figures

    runs = [run("03_epoll", sessions(1, count=3))]

    def titles(**config):
        found = figures.of_picture(stats.summarise(comparison(*runs, **config)))
        return " ".join(" ".join(one.keywords["labels"]["title"] for one in found).split())

    assert "First greeting, median" in titles()
    assert "Throughput" in titles(load="no-think-time")
    assert "Goodput" in titles(timeout=1.0)


def test_a_run_without_numbers_is_in_the_table():
    found = comparison(run("a", sessions(1)))
    found.failed_runs.append(FailedRun("b", "b.py", 7, 0, "it ended"))
    assert re.search(r"b +7 +failed", table_of(found))


def test_a_connection_s_memory_needs_ten_of_them():
    runs = [run("a", sessions(1), rss_per_connection=size) for size in (None, 2048)]
    values = [stats.value([one], "memory") for one in runs]
    assert [phrases.shown("memory", value) for value in values] == ["-", "2 KiB"]
    [axes] = drawings(runs[0], names=[2]).values()
    assert any("not measured" in text.get_text() for text in axes.texts)


def test_unknown_numbers_leave_a_gap_and_no_warning(recwarn):
    nothing = [Sample("1", name, 0.0, 0.6, "unanswered") for name in ("connect", "first_greeting")]
    nothing.append(Sample("1", "session", 0.0, 0.6, "unanswered"))
    drawings(run("01_blocking", nothing), run("03_epoll", nothing))
    assert not recwarn.list
    assert asdict(run("a", nothing).outcomes)["unserved_syn_sent"] == 1


def test_a_server_without_a_run_with_the_most_load_is_left_out_where_only_that_is_drawn():
    runs = run("a", sessions(1), 1), run("b", sessions(1), 1), run("a", sessions(1), 9)
    lines = "tail", "latency_over_time"
    drawn = drawings(*runs, names=(*lines, 0, 1, 2))
    names = [[text.get_text() for text in drawn[name].texts] for name in lines]
    assert names == [["b", "a"], ["a"]]
    assert [len(drawn[panel].get_yticks()) for panel in range(3)] == [1, 1, 1]  # side by side


ENDS = {"early": 5, "late": 9}


def test_the_name_of_a_line_that_ends_early_is_above_it():
    from load_tests.harness import charts

    lines = {name: [(x, Value(x, x, x)) for x in (1, end)] for name, end in ENDS.items()}
    figure = charts.draw(5, 4, lambda ax: charts.curves(ax, lines, {}))
    names = {text.get_text(): text for text in figure.axes[0].texts}
    assert names["early"].xyann[1] > 5
    assert names["early"].get_ha() == "right"
    assert names["late"].get_ha() == "left"


def test_a_server_with_a_throughput_of_0_has_its_name_at_the_bottom_of_a_logarithmic_axis(recwarn):
    from load_tests.harness import charts

    lines = {
        name: [(20, Value(rate, rate, rate, limited=True))]
        for name, rate in zip(NAMES, (0, 25), strict=False)
    }
    labels = {"title": "", "xlabel": "", "ylabel": ""}
    figure = charts.draw(4, 3, lambda ax: charts.curves(ax, lines, labels))
    figure.canvas.draw()
    [ax] = figure.axes
    places = {text.get_text(): text.get_window_extent().y0 for text in ax.texts}
    assert ax.bbox.y0 - 20 < places[f"{NAMES[0]}: 0"] < places[NAMES[1]]
    assert not recwarn.list


@pytest.mark.parametrize("bound", [False, True])
def test_the_number_of_a_short_bar_touches_neither_the_bar_nor_its_arrow(bound):
    from load_tests.harness import charts

    values = {"long": (Value(900, 900, 900), "900"), "short": (Value(9, 9, 9, bound), "9")}
    labels = {"xlim": (0, 9000)}  # longer than the bars
    figure = charts.draw(6, 3, lambda ax: charts.bars(ax, values, labels))
    figure.canvas.draw()
    [ax] = figure.axes
    [number] = [text for text in ax.texts if text.get_text() == "9"]
    ends = [arrow.arrow_patch.get_window_extent().x1 for arrow in arrows(ax)]
    assert len(ends) == bound
    assert number.get_window_extent().x0 > 2 + max(ax.patches[0].get_window_extent().x1, *ends, 0)
