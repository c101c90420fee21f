"""`fleet agent`: runs the pull agent in this process, so that signals reach it."""

from workers.agent.__main__ import agent

__all__ = ["agent"]
