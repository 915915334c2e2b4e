"""The Run that follows from what was recorded: the last step before it is stored."""

import socket
from dataclasses import replace

from clients.console.formatting import count
from load_tests.harness import stats
from load_tests.harness.results import GeneratorHealth, LocustRow, Run, ServerUsage

SATURATED = 0.8  # of a core, on average: users join during the first quarter of a run


def evaluate(recorded, **key):
    """Return the Run of a Recorded. key: its model, program, load and repeat."""
    numbers, log = stats.summary(recorded.samples), recorded.log
    used, visitors = usage(recorded, numbers), numbers["outcomes"]
    return Run(
        **key,
        **numbers,
        usage=used,
        generator=health(log, visitors.not_started, used.cpu_share, recorded.cores),
        errors=log["errors"],
        locust_report=recorded.report,
        locust_counted={name: LocustRow(*row) for name, row in log["locust"].items()},
    )


def usage(recorded, numbers):
    """Return the ServerUsage of a run. numbers: what its samples give."""
    readings = [replace(one, at=one.at - recorded.log["started"]) for one in recorded.readings]
    first, last = readings[0], readings[-1]

    def peak(name):
        return max(getattr(reading, name) for reading in readings)

    cpu, connections = last.cpu - first.cpu, peak("descriptors") - first.descriptors
    per_connection = max(peak("rss") - first.rss, 0) / connections if connections >= 10 else None
    return ServerUsage(
        cpu_us_per_greeting=cpu * 1e6 / numbers["greetings"] if numbers["greetings"] else None,
        cpu_share=cpu / numbers["seconds"],  # readings begin before the load
        cpu_incomplete=recorded.cpu_incomplete,
        rss_peak=peak("rss"),
        rss_per_connection=per_connection,
        connections_peak=connections,
        threads_peak=peak("threads"),
        accept_queue_peak=peak("accept_queue"),
        accept_queue_limit=recorded.accept_queue_limit,
        syn_sent_peak=max(reading.clients.get("SYN-SENT", 0) for reading in readings),
        listen_drops=last.listen_drops - first.listen_drops,
        readings=readings,
    )


def health(log, not_started, server_share, cores):
    """Return the GeneratorHealth of a run. server_share: the server's CPU, of one core."""
    processes = log["generators"].values()
    lags = sorted(lag for seen in processes for lag in seen["lag"]) or [0.0]
    late = stats.nearest_rank(lags, 99) * 1000
    here = [one["cpu"] for one in processes if one["host"] == socket.gethostname()]
    used, most = max((one["cpu"] / min(1, one["cores"]), one["cores"]) for one in processes)
    allowed = f"{most:g} cores" if most < 1 else "a core"
    reasons = [f"used {used:.0%} of {allowed} on average"] if used > SATURATED else []
    if cores < 2 and here and sum(here) + server_share > cores / 2:
        reasons.append(f"shared {count(cores, 'core')} with the server")
    reasons += [f"was {late:.0f} ms late"] if late > 50 else []
    reasons += [f"could not start {count(not_started, 'visitor')}"] if not_started else []
    reasons += [f"lost {count(len(log['left']), 'worker')}"] if log["left"] else []
    busiest = max(one["cpu"] for one in processes)
    return GeneratorHealth(busiest, late, " and ".join(reasons), log["left"])
