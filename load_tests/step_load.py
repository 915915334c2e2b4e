"""Load in steps, or with one spike: the page shows at which number of users a server gives up.

locust -f load_tests/locustfile.py,load_tests/step_load.py --web-host 127.0.0.1 \
    --host tcp://127.0.0.1:3267

It is a file of its own because a shape replaces -u, -r and -t.
"""

from locust import LoadTestShape, events

from clients.console.argtypes import number


@events.init_command_line_parser.add_listener
def add_options(parser):
    count, length = number(int, 1, 20_000), number(float, 0.1, 3600)
    add, shapes = parser.add_argument, ["steps", "spike"]
    add("--shape", choices=shapes, default="steps", help="more users in each step, or in one alone")
    add("--step-users", type=count, default=10, help="users in the first step")
    add("--step-seconds", type=length, default=10.0, help="length of a step")
    words = "number of steps; a spike has as many times the users"
    add("--steps", type=count, default=6, help=words)


class Shape(LoadTestShape):
    def tick(self):
        """Return (users, users started per second), or None when the last step is over."""
        options = self.runner.environment.parsed_options
        step = int(self.get_run_time() // options.step_seconds)
        if step >= options.steps:
            return None
        spike = options.steps if step == options.steps // 2 else 1
        users = options.step_users * (step + 1 if options.shape == "steps" else spike)
        return users, users
