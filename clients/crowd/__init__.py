"""Many clients at once: for a notebook, from clients.crowd import crowd, scoreboard."""

from clients.crowd.simulation import crowd
from clients.crowd.stats import scoreboard

__all__ = ["crowd", "scoreboard"]
