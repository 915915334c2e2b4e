"""Many clients at once: for a notebook, from clients.crowd import crowd, summary."""

from clients.crowd.simulation import crowd
from clients.crowd.stats import summary

__all__ = ["crowd", "summary"]
