"""The numbers of a run: no visitor is left out, and a percentile says only what is certain."""

import itertools
import json
import math
import random
import statistics
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from load_tests.harness import results, stats
from load_tests.harness.results import Outcomes, Percentile, Sample
from load_tests.tests.made import comparison, read, run, sessions

latencies = st.floats(0, 100)
some = st.lists(st.tuples(latencies, st.booleans()), min_size=1, max_size=40)


def sample(seconds, outcome="answered", request="first_greeting", session="1", began=1000.0):
    return Sample(session, request, began, began + seconds, outcome)


def visitor(number, **outcomes):
    """Return the samples of a visitor, 10 s long: visitor(1, connect="answered", …)."""
    return [sample(10.0, how, request, str(number)) for request, how in outcomes.items()]


def rank_of(values, share):
    return sorted(values)[max(0, math.ceil(len(values) * share / 100) - 1)]


@given(st.lists(latencies, min_size=100, max_size=120), st.integers(1, 100))
def test_a_percentile_is_the_nearest_rank_if_all_were_answered(values, share):
    found = stats.percentile([sample(value) for value in values], share)
    assert found.exact
    assert found.ms == pytest.approx(rank_of(values, share) * 1000, abs=1e-6)


@given(some, st.sampled_from([25, 50, 75, 100]), st.data())
def test_whatever_the_censored_requests_would_have_taken_the_percentile_holds(pairs, share, data):
    """Each may have been answered at any time later: try some such futures."""
    found = stats.percentile([sample(value, "unanswered" if cut else "answered", began=0)
                              for value, cut in pairs], share)  # fmt: skip
    longer = st.one_of(st.just(0.0), st.floats(0, 1000), st.just(1e6))
    futures = [[0.0] * len(pairs), [1e6] * len(pairs), [data.draw(longer) for _ in pairs]]
    true = [
        1000
        * rank_of(
            [value + cut * more for (value, cut), more in zip(pairs, future, strict=False)], share
        )
        for future in futures
    ]
    assert found.ms <= min(true) * (1 + stats.SAME) + 1e-6
    if found.exact:
        assert max(true) <= found.ms * (1 + 1e-9) + 1e-6
    else:
        assert found.ms == pytest.approx(true[0])  # the least that is possible, and no less
        assert true[1] > true[0]


def test_most_are_unanswered():
    nine = [sample(3.0, "unanswered")] * 9
    for share in (50, 90, 100):
        assert stats.percentile([*nine, sample(4.0)], share) == Percentile(
            4000 if share == 100 else 3000, exact=False
        )
    fifteen = [sample(0.1)] * 5 + [sample(4.0)] * 2 + [sample(4.2, "unanswered")] * 8
    assert stats.percentile(fifteen, 50) == Percentile(pytest.approx(4200), exact=False)
    assert stats.percentile(fifteen, 25) == Percentile(pytest.approx(100), exact=True)


@pytest.mark.parametrize("rate", [0.5, 0.9, 1.5, 3])
def test_a_queue_served_in_order_and_watched_until_all_are_answered(rate):
    """One server, 20 ms per request, Poisson arrivals; the run ends before the queue is empty."""
    for seed, share in itertools.product(range(20), (50, 90, 99)):
        draw, free, due, true, seen = random.Random(seed), 0.0, 0.0, [], []
        end = draw.uniform(2, 10)
        while (due := due + draw.expovariate(50 * rate)) < end:
            free = max(free, due) + 0.02
            true.append(free - due)
            late = free > end
            seen.append(sample(min(free, end) - due, "unanswered" if late else "answered"))
        found, expected = stats.percentile(seen, share), 1000 * rank_of(true, share)
        if found is None:
            continue
        assert found.ms <= expected * (1 + stats.SAME)
        if found.exact:
            assert found.ms == pytest.approx(expected, rel=stats.SAME)


def test_few_samples_have_no_tail():
    assert stats.percentile([sample(1.0)] * 99, 99) is None
    assert stats.percentile([sample(1.0)] * 100, 99) == Percentile(1000, exact=True)
    assert stats.percentile([sample(1.0)] * 9, 90) is None
    assert stats.percentile([], 50) is None
    assert stats.percentile([sample(7.0)], 100) == Percentile(7000, exact=True)


def test_percentiles_of_plain_numbers_are_exact():
    hundred = list(range(1, 101))
    assert [stats.nearest_rank(hundred, share) for share in (1, 50, 99, 100)] == [1, 50, 99, 100]
    few = [stats.nearest_rank([10, 20, 30], share) for share in (33, 34, 50, 99)]
    assert few == [10, 20, 20, 30]
    assert stats.nearest_rank([7], 50) == 7


def test_the_median_is_between_the_quartiles():
    assert stats.quartiles([5, 1, 4, 2, 3]) == (2, 3, 4)
    assert stats.quartiles([7]) == (7, 7, 7)


CASES = {
    "finished": dict.fromkeys(
        ("connect", "first_greeting", "later_greeting", "session"), "answered"
    ),
    "in_session": {"connect": "answered", "first_greeting": "answered", "session": "unanswered"},
    "unserved_established": {
        "connect": "answered",
        "first_greeting": "unanswered",
        "session": "unanswered",
    },
    "unserved_syn_sent": dict.fromkeys(("connect", "first_greeting", "session"), "unanswered"),
    "gave_up": {"connect": "answered", "first_greeting": "timed_out", "session": "timed_out"},
    "not_started": dict.fromkeys(("connect", "first_greeting", "session"), "not_started"),
    "failed": {"connect": "answered", "first_greeting": "failed", "session": "failed"},
}


@pytest.mark.parametrize("outcome", CASES)
def test_each_outcome(outcome):
    assert stats.outcomes(visitor(1, **CASES[outcome])) == Outcomes(**{outcome: 1})


def test_a_visitor_that_comes_at_the_last_moment_is_not_unserved():
    found = stats.outcomes(
        [sample(0.2, "unanswered", name) for name in ("connect", "first_greeting", "session")]
    )
    assert found == Outcomes(too_late=1)
    assert found.unserved == 0


@given(st.lists(st.sampled_from(list(CASES)), max_size=30))
def test_the_outcomes_add_up(names):
    samples = [row for number, name in enumerate(names) for row in visitor(number, **CASES[name])]
    found = stats.outcomes(samples)
    assert found.visitors == len(names)
    assert all(getattr(found, name) == names.count(name) for name in CASES)
    assert set(results.OUTCOMES) == {*CASES, "too_late"}


def test_a_failure_among_many_greetings_is_a_failure():
    rows = visitor(1, **CASES["finished"])
    rows[2:2] = [sample(1, "failed", "later_greeting"), sample(1, "answered", "later_greeting")]
    assert stats.outcomes(rows).failed == 1


def test_a_second_attempt_that_is_answered_counts():
    rows = visitor(1, connect="answered", first_greeting="timed_out")
    assert stats.outcomes(rows + visitor(1, **CASES["finished"])).finished == 1


def test_in_service_from_the_first_greeting_until_the_visitor_leaves():
    samples = []
    for number in range(3):  # three visitors, 1 s apart, in service for 2 s after 1 s of waiting
        came = {"session": str(number), "began": float(number)}
        samples.append(sample(1.0, request="first_greeting", **came))
        samples.append(sample(3.0, request="session", **came))
    counts = {one.at: one.in_service for one in stats.moments(samples, 5.0, least=0.5)}
    assert [counts[at] for at in (0.5, 1.5, 2.5, 3.5, 4.5)] == [0, 1, 2, 2, 1]


def test_a_stall_is_seen_over_time():
    samples = [sample(0.001, began=at / 100) for at in range(1000) if not 300 <= at < 700]
    samples.append(sample(4.0, began=3.0))
    found = stats.moments(samples, 10.0)
    assert {one.greetings for one in found if 3.1 <= one.at < 6.9} == {0}
    assert sum(one.greetings for one in found) == len(samples)


def test_a_summary_counts_all_greetings():
    samples = [row for number in range(4) for row in visitor(number, **CASES["finished"])]
    samples.append(sample(0.5, request="abandoned_greeting"))
    found = stats.summary(samples)
    assert (found["greetings"], found["abandoned"]) == (8, 1)
    assert found["goodput"] == pytest.approx(0.8)
    assert found["throughput"] == pytest.approx(0.9)
    assert found["latency"]["session"].p50.ms == pytest.approx(10_000)
    mean = statistics.fmean(one.in_service for one in found["moments"])
    assert mean == found["in_service_mean"]


def test_a_distribution_ends_where_the_unanswered_begin():
    samples = [sample(number / 1000) for number in range(1, 1001)]
    whole = stats.distribution(samples)
    assert len(whole) == stats.POINTS
    assert whole[0] == [pytest.approx(1), 0.001]
    assert whole[-1] == [pytest.approx(1000), 1]
    assert stats.distribution([*samples[:3], sample(5, "unanswered")])[-1][1] == 0.75


def test_the_median_of_repeats_is_a_lower_bound_if_one_of_them_is():
    exact = [run("a", sessions(seconds)) for seconds in (1, 2, 4)]
    found = stats.value(exact, "p50")
    assert (found.low, found.amount, found.high, found.bound) == (1500, 2000, 3000, False)
    assert stats.value([*exact, run("a", sessions(3, "unanswered"))], "p50").bound
    assert stats.value([run("a", sessions(1), limited="was 71 ms late")], "p50").limited
    assert stats.value([run("a", sessions(1), rss_per_connection=None)], "memory") is None
    assert stats.value([run("a", sessions(1), cpu_incomplete=True)], "cpu").bound


def test_the_most_load_and_its_repeats():
    runs = [run(name, sessions(1), load, n) for load in (1, 9) for n in (0, 1) for name in "ab"]
    found = stats.summarise(comparison(*runs))
    assert [(row.load, row.model) for row in found.rows] == [(1, "a"), (1, "b"), (9, "a"), (9, "b")]
    assert [(row.load, row.model) for row in found.heaviest] == [(9, "a"), (9, "b")]
    assert [one.repeat for one in found.rows[2].runs] == [0, 1]
    assert found.rows[2].outcomes.visitors == 2
    assert found.rows[2].values["visitors"].amount == 1


def test_results_are_read_as_they_were_written(tmp_path):
    found = comparison(run("a", sessions(1, count=3)), run("b", sessions(2, "unanswered")))
    (tmp_path / "results.json").write_text(json.dumps(asdict(found)))
    assert read(tmp_path / "results.json") == found


def test_what_happens_while_users_are_stopped_is_not_part_of_the_load():
    from load_tests.harness.sample_log import SampleLog  # not at the top: gevent comes with it

    log = SampleLog()
    log.started, log.over = 2.0, 10.0
    log.note("1", "first_greeting", 9.0, 9.5, "answered")
    log.note("2", "first_greeting", 9.9, 10.1, "answered")  # too late: at 10 s it had no answer
    log.note("3", "first_greeting", 9.9, 10.2, "unanswered")
    log.note("4", "first_greeting", 9.9, 10.2, "failed")
    for outcome in ("answered", "unanswered", "failed"):
        log.note("5", "first_greeting", 10.0, 10.1, outcome)
    assert log.content()["samples"] == [
        ("1", "first_greeting", 7.0, 7.5, "answered"),
        *[(name, "first_greeting", 7.9, 8.0, "unanswered") for name in "234"],
    ]
