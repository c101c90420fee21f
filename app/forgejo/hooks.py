"""Creates, checks and tests the webhook of a repository or an organisation."""

from dataclasses import dataclass

from app.domain.errors import Kind, Refused
from app.forgejo.http import HttpClient
from app.forgejo.models import Found

# The API takes these names, and then lists the names of single events (NEEDED).
SUBSCRIBED = (
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
    """A hook as the forge lists it. For branches outside the pattern `branches` it sends no push and no deletion."""

    id: int
    url: str
    active: bool
    content_type: str
    events: frozenset[str]
    branches: str = ""

    def faults(self) -> list[str]:
        """What keeps the hook from sending everything, as parts of a sentence."""
        missing = sorted(NEEDED - self.events)
        faults = [] if self.active else ["it is not active"]
        faults += [] if self.content_type == "json" else [f"it sends {self.content_type}, not JSON"]
        faults += [] if self.branches in ("", "*", "**") else [f"its branch filter allows only {self.branches}"]
        return faults + ([f"it does not send {', '.join(missing)}"] if missing else [])


def list_hooks(client: HttpClient, owner_or_repository: str) -> list[Hook] | None:
    """The hooks of `owner/name` or of an organisation; None if our token may not list them."""
    answer = client.send("GET", f"{_path(owner_or_repository)}/hooks", ok={401, 403, 404}, query={"limit": 50})
    return [_parse_hook(one) for one in answer.json()] if answer.is_success else None


def ensure_hook(
    client: HttpClient, owner_or_repository: str, url: str, secret: str, replace: bool = False
) -> tuple[Hook, bool]:
    """A hook that sends everything to `url`, and whether it was created now.

    A good hook is kept, unless `replace` asks for one with a new secret: the forge shows no secret. A faulty one is
    replaced, since a patch would lose its secret or its events. Raises Refused if our token may not see hooks.
    """
    hooks = list_hooks(client, owner_or_repository)
    if hooks is None:
        raise Refused(Kind.FORBIDDEN, f"This token may not see the hooks of {owner_or_repository}.")
    ours = [hook for hook in hooks if hook.url == url]
    good = next((hook for hook in ours if not hook.faults() and not replace), None)
    if good:
        return good, False
    made = _create_hook(client, owner_or_repository, url, secret)
    for old in ours:
        client.send("DELETE", f"{_path(owner_or_repository)}/hooks/{old.id}", ok={404})
    return made, True


def _create_hook(client: HttpClient, owner_or_repository: str, url: str, secret: str) -> Hook:
    path, config = f"{_path(owner_or_repository)}/hooks", {"url": url, "content_type": "json", "secret": secret}
    new = {"type": "forgejo", "active": True, "config": config, "events": list(SUBSCRIBED)}
    answer = client.send("POST", path, new, ok={422})
    if not answer.is_success:  # Gitea accepts only its own name as the type
        answer = client.send("POST", path, new | {"type": "gitea"})
    return _parse_hook(answer.json())


def send_test(client: HttpClient, owner_or_repository: str, hook: Hook) -> None:
    """Make the forge send a test delivery. Raises Refused for a hook of an organisation: the API cannot test those."""
    if "/" not in owner_or_repository:
        raise Refused(
            Kind.INVALID,
            f"The API cannot test an organisation's hook. Press 'Test delivery' at hook {hook.id} in the settings of "
            f"{owner_or_repository}, then run `fleet deliveries list`.",
        )
    client.send("POST", f"{_path(owner_or_repository)}/hooks/{hook.id}/tests")


def _path(owner_or_repository: str) -> str:
    return f"/repos/{owner_or_repository}" if "/" in owner_or_repository else f"/orgs/{owner_or_repository}"


def _parse_hook(found: Found) -> Hook:
    config = found.get("config") or {}
    return Hook(
        id=found["id"],
        url=str(config.get("url") or found.get("url") or ""),
        active=bool(found.get("active")),
        content_type=str(config.get("content_type") or found.get("content_type") or ""),
        events=frozenset(found.get("events") or ()),
        branches=str(found.get("branch_filter") or ""),
    )
