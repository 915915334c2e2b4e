"""Run a server so that only requests that begin with "slow" are slow.

slow_requests.py INTERVAL SERVER.py OPTIONS: the server's --wait and --compute then apply to such
requests alone. INTERVAL: the switch interval in seconds, after which a thread that computes must
release the GIL if another one waits for it (sys.setswitchinterval; by default 0.005).
The server's file is unchanged. At its start its function greeting(chunk, ...) is replaced, which
the three models and the alternatives have.
"""

import runpy
import sys
from pathlib import Path


def only_slow(greeting):
    def greet(chunk, *slow):
        return greeting(chunk, *(slow if chunk.startswith(b"slow") else [0] * len(slow)))

    return greet


def main():
    sys.setswitchinterval(float(sys.argv[1]))
    program = Path(sys.argv[2]).resolve()
    sys.argv = sys.argv[2:]
    sys.path[0] = str(program.parent)
    if (program.parent / "common.py").is_file():  # an alternative: its greeting() is in there
        import common

        common.greeting = only_slow(common.greeting)
        runpy.run_path(str(program), run_name="__main__")
        return
    server = runpy.run_path(str(program))  # not as __main__: this only defines its functions
    if "greeting" not in server or "main" not in server:
        sys.exit(f"{program} has no greeting(chunk, ...) and main(): --slow-requests needs both")
    names = server["main"].__globals__
    names["greeting"] = only_slow(names["greeting"])
    server["main"]()


if __name__ == "__main__":
    main()
