"""The numbers of a run: nobody is lost, and a percentile is what it says."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from load_tests.harness import stats
from load_tests.harness.sample_log import Journal

waits = st.floats(0, 100)


def sample(wait, outcome="answered", what="first", visitor=1, began=1000.0):
    return (visitor, what, began, began + wait, outcome)


def visitor(number, **outcomes):
    """Return the samples of a visitor, 10 s long: visitor(1, connect="answered", ...)."""
    return [sample(10.0, outcome, what, number) for what, outcome in outcomes.items()]


@given(st.lists(waits, min_size=1), st.integers(1, 100))
def test_a_percentile_is_the_nearest_rank_if_all_were_answered(values, share):
    found = stats.percentile([sample(value) for value in values], share)
    expected = sorted(values)[math.ceil(len(values) * share / 100) - 1]
    assert found["exact"]
    assert found["ms"] == pytest.approx(expected * 1000, abs=1e-6)


@given(st.lists(st.tuples(waits, st.booleans()), min_size=1), st.integers(1, 100))
def test_who_was_cut_off_never_makes_a_percentile_smaller(pairs, share):
    cut = [sample(wait, "unanswered" if late else "answered") for wait, late in pairs]
    answered = [sample(wait) for wait, _ in pairs]
    with_cuts, without = stats.percentile(cut, share), stats.percentile(answered, share)
    assert with_cuts["ms"] >= without["ms"] - 1e-6


def test_percentiles_of_a_run_in_which_most_were_never_answered():
    samples = [sample(0.1)] * 5 + [sample(4.0, "unanswered")] * 18
    assert stats.percentile(samples, 10) == {"ms": pytest.approx(100), "exact": True}
    assert stats.percentile(samples, 50) == {"ms": pytest.approx(4000), "exact": False}


def test_a_request_cut_off_at_once_says_nothing():
    samples = [sample(0.1)] * 9 + [sample(0.0001, "unanswered")]
    assert stats.percentile(samples, 99) == {"ms": pytest.approx(100), "exact": True}


def test_percentiles_of_plain_numbers_are_exact():
    hundred = list(range(1, 101))
    assert [stats.nearest_rank(hundred, share) for share in (1, 50, 99, 100)] == [1, 50, 99, 100]
    few = [stats.nearest_rank([10, 20, 30], share) for share in (33, 34, 50, 99)]
    assert few == [10, 20, 20, 30]
    assert stats.nearest_rank([7], 50) == 7


def test_the_spread_is_the_median_between_the_quartiles():
    assert stats.spread([5, 1, 4, 2, 3]) == (2, 3, 4)
    assert stats.spread([7]) == (7, 7, 7)


def test_no_samples_no_percentile():
    assert stats.percentile([], 50) is None


FATES = {
    "finished": dict.fromkeys(("connect", "first", "next", "visit"), "answered"),
    "still served": {"connect": "answered", "first": "answered", "visit": "unanswered"},
    "idle": {"connect": "answered", "visit": "unanswered"},
    "never greeted": {"connect": "answered", "first": "unanswered", "visit": "unanswered"},
    "never connected": dict.fromkeys(("connect", "first", "visit"), "unanswered"),
    "failed": {"connect": "answered", "first": "failed", "visit": "failed"},
}


@pytest.mark.parametrize("fate", FATES)
def test_each_fate(fate):
    board = stats.scoreboard(visitor(1, **FATES[fate]))
    assert board == {"came": 1, **dict.fromkeys(stats.FATES, 0), fate: 1}


def test_who_came_at_the_last_moment_was_not_left_waiting():
    board = stats.scoreboard(
        [sample(0.2, "unanswered", what) for what in ("connect", "first", "visit")]
    )
    assert board["just came"] == 1
    assert stats.never_served(board) == 0


@given(st.lists(st.sampled_from(list(FATES)), max_size=30))
def test_the_scoreboard_adds_up(fates):
    samples = [row for number, fate in enumerate(fates) for row in visitor(number, **FATES[fate])]
    board = stats.scoreboard(samples)
    assert board["came"] == len(fates) == sum(board[name] for name in stats.FATES)
    assert all(board[fate] == fates.count(fate) for fate in FATES)


def test_a_failure_among_many_greetings_is_a_failure():
    rows = visitor(1, **FATES["finished"])
    rows[2:2] = [sample(1, "failed", "next"), sample(1, "answered", "next")]
    assert stats.scoreboard(rows)["failed"] == 1


def test_served_from_the_first_greeting_until_the_visitor_leaves():
    samples = []
    for number in range(3):  # three visitors, one second apart, served for 2 s after 1 s of waiting
        samples.append(sample(1.0, "answered", "first", number, 100.0 + number))
        samples.append(sample(3.0, "answered", "visit", number, 100.0 + number))
    counts = dict(map(tuple, stats.serving(samples, every=0.5)))
    assert [counts[moment] for moment in (0.5, 1.5, 2.5, 3.5, 4.5)] == [0, 1, 2, 2, 1]


def test_a_summary_counts_all_greetings():
    samples = [row for number in range(4) for row in visitor(number, **FATES["finished"])]
    numbers = stats.summary(samples)
    assert numbers["greetings"] == 8
    assert numbers["greetings_per_second"] == pytest.approx(0.8)
    assert numbers["latency"]["visit"]["p50"]["ms"] == pytest.approx(10_000)
    assert statistics.fmean(count for _, count in numbers["serving"]) == numbers["serving_mean"]


def test_what_comes_while_users_are_stopped_is_no_load():
    journal = Journal()
    journal.epoch, journal.over = 0.0, 10.0
    journal.note(1, "first", 9.0, 9.5, "answered")
    journal.note(2, "first", 9.9, 10.1, "answered")  # too late: at 10 s it had no answer
    journal.note(3, "first", 9.9, 10.2, "unanswered")
    journal.note(4, "first", 9.9, 10.2, "failed")
    for outcome in ("answered", "unanswered", "failed"):
        journal.note(5, "first", 10.0, 10.1, outcome)
    assert journal.drain()["samples"] == [
        (1, "first", 9.0, 9.5, "answered"),
        *[(visitor, "first", 9.9, 10.0, "unanswered") for visitor in (2, 3, 4)],
    ]
