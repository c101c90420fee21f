"""The hooks of a repository or an organisation, with what is known of their traps: never patched, always made anew."""

from dataclasses import dataclass

from app.domain.errors import Kind, Refused
from app.forgejo.http import Json, Wire

# What to ask for, in the names that the API takes; what it then lists are the names of single events.
ASKED = (
    "issues", "issue_comment", "pull_request", "push", "create", "delete", "action_run_success", "action_run_failure",
    "action_run_recover",
)  # fmt: skip
NEEDED = frozenset({
    "issues", "issue_label", "issue_assign", "issue_comment", "pull_request", "pull_request_comment",
    "pull_request_review_approved", "pull_request_review_rejected", "pull_request_review_comment", "pull_request_sync",
    "push", "delete",
})  # fmt: skip
PATH = "/api/v1/webhooks/forgejo"


@dataclass(frozen=True)
class Hook:
    """A hook as the forge lists it. `branches` is a pattern: of others it tells no push and no end."""

    id: int
    url: str
    active: bool
    content_type: str
    events: frozenset[str]
    branches: str = ""

    def faults(self) -> list[str]:
        """What keeps it from telling us everything, as sentences."""
        missing = sorted(NEEDED - self.events)
        said = [] if self.active else ["it is not active"]
        said += [] if self.content_type == "json" else [f"it sends {self.content_type}, not JSON"]
        said += [] if self.branches in ("", "*", "**") else [f"its branch filter leaves out all but {self.branches}"]
        return said + ([f"it does not send {', '.join(missing)}"] if missing else [])


def of(wire: Wire, where: str) -> list[Hook] | None:
    """The hooks of `owner/name` or of an organisation; None where our token may not look."""
    answer = wire.send("GET", f"{_path(where)}/hooks", ok={401, 403, 404}, query={"limit": 50})
    return [_hook(one) for one in answer.json()] if answer.is_success else None


def ensure(wire: Wire, where: str, url: str, secret: str, anew: bool = False) -> tuple[Hook, bool]:
    """A hook that brings everything to `url`, and whether it was made now. One that is there and good is left alone,
    unless it shall be made `anew` for another secret, which nobody can see; a faulty one is replaced, since a patch
    would lose its secret or its events. Raises Refused."""
    found = of(wire, where)
    if found is None:
        raise Refused(Kind.FORBIDDEN, f"This token may not see the hooks of {where}.")
    ours = [hook for hook in found if hook.url == url]
    good = next((hook for hook in ours if not hook.faults() and not anew), None)
    if good:
        return good, False
    config = {"url": url, "content_type": "json", "secret": secret}
    order = {"type": "forgejo", "active": True, "config": config, "events": list(ASKED)}
    answer = wire.send("POST", f"{_path(where)}/hooks", order, ok={422})
    if not answer.is_success:  # Gitea knows its own name alone
        answer = wire.send("POST", f"{_path(where)}/hooks", order | {"type": "gitea"})
    made = _hook(answer.json())
    for old in ours:
        wire.send("DELETE", f"{_path(where)}/hooks/{old.id}", ok={404})
    return made, True


def try_out(wire: Wire, where: str, hook: Hook) -> None:
    """Have the forge send a test delivery. Raises Refused for an organisation's hook, which has none by API."""
    if "/" not in where:
        raise Refused(
            Kind.INVALID,
            f"The forge tests an organisation's hook by hand alone: press 'Test delivery' at hook {hook.id} in the "
            f"settings of {where}, then look at `fleet deliveries list`.",
        )
    wire.send("POST", f"{_path(where)}/hooks/{hook.id}/tests")


def _path(where: str) -> str:
    return f"/repos/{where}" if "/" in where else f"/orgs/{where}"


def _hook(found: Json) -> Hook:
    config = found.get("config") or {}
    return Hook(
        id=found["id"],
        url=str(config.get("url") or found.get("url") or ""),
        active=bool(found.get("active")),
        content_type=str(config.get("content_type") or found.get("content_type") or ""),
        events=frozenset(found.get("events") or ()),
        branches=str(found.get("branch_filter") or ""),
    )
