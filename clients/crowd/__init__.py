"""Many clients at once: for a notebook, from clients.crowd import crowd, scoreboard."""

from clients.crowd.lives import crowd
from clients.crowd.scores import scoreboard

__all__ = ["crowd", "scoreboard"]
