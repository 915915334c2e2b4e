"""Step load: more users every few seconds, so that the page shows where a server gives up.

locust -f load_tests/locustfile.py,load_tests/step_load.py --web-host 127.0.0.1 \
    --host tcp://127.0.0.1:3267

It stands in a file of its own because a shape takes the place of -u, -r and -t.
"""

from locust import LoadTestShape, events

from clients.console.argtypes import number


@events.init_command_line_parser.add_listener
def add_options(parser):
    count, length = number(int, 1, 20_000), number(float, 0.1, 3600)
    parser.add_argument("--step-users", type=count, default=10, help="Steps: users in a step")
    parser.add_argument("--step-seconds", type=length, default=10.0, help="Steps: length of one")
    parser.add_argument("--steps", type=count, default=6, help="Steps: how many")


class Steps(LoadTestShape):
    def tick(self):
        """Return (users, users started a second), or None when the last step is over."""
        options = self.runner.environment.parsed_options
        step = int(self.get_run_time() // options.step_seconds)
        if step >= options.steps:
            return None
        return (step + 1) * options.step_users, options.step_users
