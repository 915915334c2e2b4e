"""Run a server so that only some clients are slow: those whose message begins with "slow".

slow_requests.py INTERVAL SERVER.py OPTIONS: the server's --wait and --compute then apply to such
messages alone. INTERVAL: the switch interval in seconds, after which a thread that computes must
release the GIL if another one waits for it (sys.setswitchinterval; Python's own is 0.005).
Its file is unchanged; what is replaced, as it starts, is its function greeting(chunk, ...), which
the three models and their peers have.
"""

import functools
import runpy
import sys
from pathlib import Path


def only_slow(greeting):
    """Return a greeting() for which what makes it slow holds only where a message asks for it."""

    @functools.wraps(greeting)
    def greet(chunk, *slow):
        return greeting(chunk, *(slow if chunk.startswith(b"slow") else [0] * len(slow)))

    return greet


def main():
    sys.setswitchinterval(float(sys.argv[1]))
    program = Path(sys.argv[2]).resolve()
    sys.argv = sys.argv[2:]
    sys.path[0] = str(program.parent)
    if (program.parent / "common.py").is_file():  # a peer: its greeting() stands there
        import common

        common.greeting = only_slow(common.greeting)
        runpy.run_path(str(program), run_name="__main__")
        return
    server = runpy.run_path(str(program))  # not as __main__: it defines its functions, no more
    if "greeting" not in server or "main" not in server:
        sys.exit(f"{program} has no greeting(chunk, ...) and main(): --slow-requests needs both")
    inside = server["main"].__globals__
    inside["greeting"] = only_slow(inside["greeting"])
    server["main"]()


if __name__ == "__main__":
    main()
