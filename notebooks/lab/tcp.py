"""Experiments that make TCP visible, each in a network of its own that ends with it.

    from lab.tcp import run
    run("conversation", closer="client")     # a dictionary: packets, states, calls, ...

run() starts experiments.py inside `unshare --user --map-root-user --net --mount`. Where a system
forbids that, it says so once and hands out what the same experiment gave on another machine
(recorded.json, beside this file).
"""

import datetime
import json
import os
import platform
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from clients.system.processes import NamespaceDenied, run_in_netns

from .experiments import NOT_HERE

RECORDED = Path(__file__).with_name("recorded.json")
NOTEBOOKS = Path(__file__).resolve().parent.parent
RECORDING = threading.Lock()
explained = set()  # reasons for recorded data that a reader has been told


def run(experiment, **options):
    """Run an experiment in a network of its own and return what was observed, plain data.

    Besides what the experiment's docstring says it has "source": the day and the kernel, and
    whether that was now. Raises RuntimeError with the experiment's last words if it fails.
    """
    try:
        data = live(experiment, options)
        if os.environ.get("TCPLAB") == "record":
            record(experiment, options, data)
    except NamespaceDenied as error:
        explain(str(error))
        data = recorded(experiment, options)
    return data


def compare(experiment, cases):
    """Run an experiment once for each case, {name: options}, all at the same time: {name: data}."""
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda options: run(experiment, **options), cases.values())
        return dict(zip(cases, found, strict=True))


def live(experiment, options):
    """Run an experiment in a new network namespace; raises Forbidden where that is not allowed."""
    if os.environ.get("TCPLAB") == "recorded":
        raise NamespaceDenied("TCPLAB=recorded was asked for")
    program = [sys.executable, "-m", "lab.experiments", experiment, json.dumps(options)]
    limit = options.get("seconds", 0) + 60
    done = run_in_netns(program, "--mount", cwd=NOTEBOOKS, timeout=limit)
    words = done.stderr.strip()
    if done.returncode == NOT_HERE:
        raise NamespaceDenied(words.splitlines()[-1])
    if done.returncode:
        raise RuntimeError(f"{experiment} failed: {words}")
    data = json.loads(done.stdout)
    data["packets"] = dissect(data.get("packets", []))
    today = f"{datetime.date.today()}, Linux {platform.release()}"
    return data | {"source": f"observed live, {today}", "when": today}


def dissect(packets):
    """Return what the packets say, as observed() describes it."""
    from scapy.layers.inet import IP, TCP  # here, as the experiments do not need its half a second

    names = {"S": "SYN", "A": "ACK", "F": "FIN", "R": "RST", "P": "PSH"}
    first, rows = {}, []  # first: {(from port, to port): the first number of this direction}
    for packet in packets:
        tcp = IP(bytes.fromhex(packet["packet"]))[TCP]
        seq0 = first.setdefault((tcp.sport, tcp.dport), tcp.seq)
        ack0 = first.get((tcp.dport, tcp.sport), tcp.ack)
        row = {name: packet[name] for name in ("sender", "at", "arrived")}
        row["port"] = tcp.sport if row["sender"] == "client" else tcp.dport
        row["flags"] = " ".join(names[flag] for flag in str(tcp.flags) if flag in names)
        row["seq"] = (tcp.seq - seq0) % 2**32
        row["ack"] = (tcp.ack - ack0) % 2**32 if "A" in tcp.flags else None
        row["length"] = len(tcp.payload)
        rows.append(row)
    return rows


def explain(reason):
    """Say why the data are recorded ones; once, and not for each picture."""
    if reason not in explained:
        explained.add(reason)
        print(
            f"not observed live here: {reason}. The pictures show recorded data and say so. Where "
            "only a network of one's own is forbidden, start Jupyter with sudo, or on a Linux that "
            "allows user namespaces."
        )


def key(experiment, options):
    """Return the name under which an experiment is recorded; how long it watched is no part."""
    kept = {name: value for name, value in options.items() if name != "seconds"}
    return f"{experiment} {json.dumps(kept, sort_keys=True)}"


def recorded(experiment, options):
    data = json.loads(RECORDED.read_text())[key(experiment, options)]
    return data | {"source": f"recorded {data['when']}"}


def shortened(data):
    """Return plain data with all times to a hundredth of a millisecond, as they are recorded."""
    return json.loads(json.dumps(data), parse_float=lambda digits: round(float(digits), 5))


def record(experiment, options, data):
    """Add to the recorded data."""
    with RECORDING:
        known = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
        known[key(experiment, options)] = shortened(data)
        lines = [f"{json.dumps(name)}: {json.dumps(known[name])}" for name in sorted(known)]
        RECORDED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
