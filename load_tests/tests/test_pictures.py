"""What the pictures say: the finding in the title, arrows at lower bounds, hollow marks."""

import pytest

from clients.console.formatting import count
from load_tests.harness import charts, report

MEDIAN = report.METRICS["first p50"]


def run(model, ms, exact=True, slow=False, load=7):
    """Return as much of a run as the median of the first greeting needs."""
    return {
        "model": model,
        "load": load,
        "error": None,
        "latency": {"first": {"p50": {"ms": ms, "exact": exact}}},
        "generator": {"bottleneck": slow},
    }


def results(*runs):
    return {"options": {"loop": "closed", "load": "visitors"}, "runs": list(runs)}


@pytest.mark.parametrize(
    ("times", "finding"),
    [
        ([5000, 1.0, 3], "5 s with 01_blocking, 1 ms with 02_threaded"),
        ([5000, 1.05, 1.0], "5 s with 01_blocking, about 1 ms with 02_threaded and 03_epoll"),
        ([2, 2, 2], "2 ms with 01_blocking, 02_threaded and 03_epoll"),
    ],
)
def test_a_title_names_no_winner_where_the_difference_is_noise(times, finding):
    names = "01_blocking", "02_threaded", "03_epoll"
    found = results(*(run(*pair) for pair in zip(names, times, strict=True)))
    title = MEDIAN.title(found, width=200)
    assert title == f"First greeting: half of the visitors wait at least {finding}"


def test_one_user_is_singular():
    assert charts.load_text(results(), 1) == "1 user"
    assert charts.load_text(results(), 200) == "200 users"
    assert charts.load_text({"options": {"loop": "open"}}, 0.5) == "0.5 arrivals a second"
    assert count(1, "Locust process") == "1 Locust process"
    assert count(2, "Locust process") == "2 Locust processes"


def arrows(ax):
    return [text for text in ax.texts if getattr(text, "arrow_patch", None)]


@pytest.mark.parametrize("draw", [charts.curves, charts.bars])
def test_a_lower_bound_has_an_arrow_wherever_it_is_drawn(draw):
    found = results(run("01_blocking", 5000, exact=False), run("03_epoll", 1))
    figure = charts.draw(5, 4, lambda ax: draw(ax, found, MEDIAN, "title"))
    assert len(arrows(figure.axes[0])) == 1
    exact = results(run("01_blocking", 5000), run("03_epoll", 1))
    figure = charts.draw(5, 4, lambda ax: draw(ax, exact, MEDIAN, "title"))
    assert not arrows(figure.axes[0])


def test_a_mark_is_hollow_where_locust_was_too_slow_and_the_picture_says_so():
    found = results(run("03_epoll", 1, load=1), run("03_epoll", 1, slow=True))
    figure = charts.draw(5, 4, lambda ax: charts.curves(ax, found, MEDIAN, "title"))
    _, words = figure.axes[0].get_legend_handles_labels()
    assert [word for word in words if "Locust was too slow" in word]


def test_the_name_of_a_line_that_ends_early_stands_above_it():
    series = {"early": ("#000000", "o", [(1, [1]), (5, [5])])}
    series["late"] = ("#0072B2", "^", [(1, [1]), (9, [9])])
    figure = charts.draw(5, 4, lambda ax: charts.measured(ax, series, "title", "x", "y"))
    names = {text.get_text(): text for text in figure.axes[0].texts}
    assert names["early"].xyann[1] > 5
    assert names["early"].get_ha() == "right"
    assert names["late"].get_ha() == "left"
