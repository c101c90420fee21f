"""Maps the event names of a hook to the events that it receives."""

from __future__ import annotations

import fnmatch
import re

ISSUE = ["issues", "issue_assign", "issue_label", "issue_milestone", "issue_comment"]
REVIEW = ["pull_request_review_approved", "pull_request_review_rejected", "pull_request_review_comment"]
PULL = [
    "pull_request",
    "pull_request_assign",
    "pull_request_label",
    "pull_request_milestone",
    "pull_request_comment",
    *REVIEW,
    "pull_request_sync",
    "pull_request_review_request",
]
RUNS = ["action_run_failure", "action_run_recover", "action_run_success"]
REFS = ["create", "delete", "push"]
KNOWN = [*REFS, *ISSUE, *PULL, *RUNS]  # also the order in which a hook lists its events

SWITCHES: dict[str, list[str]] = {
    **{name: [name] for name in KNOWN if name not in REVIEW},
    "issues": ISSUE,
    "issues_only": ["issues"],
    "pull_request": PULL,
    "pull_request_only": ["pull_request"],
    "pull_request_review": REVIEW,
}

COARSE = {
    **{name: name for name in KNOWN},
    **dict.fromkeys(["issue_assign", "issue_label", "issue_milestone"], "issues"),
    **dict.fromkeys(PULL, "pull_request"),
    "pull_request_comment": "issue_comment",
    "pull_request_review_approved": "pull_request_approved",
    "pull_request_review_rejected": "pull_request_rejected",
    "pull_request_review_comment": "pull_request_comment",
}


def wanted(events: list[str]) -> set[str]:
    """Unknown names, and the single review kinds, switch on nothing."""
    return {kind for name in events or ["push"] for kind in SWITCHES.get(name, [])}


def passes(branch_filter: str, branch: str) -> bool:
    """Does the branch match the glob, which may say {one,other}? ** is any, and so is * but for slashes."""
    if branch_filter in ("", "*", "**"):
        return True
    group = re.search(r"\{([^{}]*)\}", branch_filter)
    if group is None:
        return fnmatch.fnmatchcase(branch, branch_filter)
    return any(
        passes(branch_filter[: group.start()] + choice + branch_filter[group.end() :], branch)
        for choice in group[1].split(",")
    )
