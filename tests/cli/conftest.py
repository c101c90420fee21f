"""Fixtures of the command tests: an sshd with hosts."""

from tests.workers.conftest import make_sshd, sshd

__all__ = ["make_sshd", "sshd"]
