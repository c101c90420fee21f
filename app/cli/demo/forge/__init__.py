"""Fakes a Forgejo for tests and the demo: REST API, git over HTTP and webhooks, on real bare repositories.

    forge = FakeForge(root=tmp_path).start()
    token = forge.add_user("alice")
    forge.add_repository("acme/widgets", files={"README.md": "# widgets"})
    forge.collaborate("acme/widgets", "alice", "admin")
    forge.client(token).post("/repos/acme/widgets/issues", json={"title": "It is broken"})
    forge.stop()

As a process: python -m app.cli.demo.forge --root DIR --state-file FILE
"""

from .deliveries import Delivery, sign
from .faults import Faults
from .server import HOOK_EVENTS, FakeForge

__all__ = ["HOOK_EVENTS", "Delivery", "FakeForge", "Faults", "sign"]
