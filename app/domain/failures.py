"""Lists the reasons why a run fails: whether another attempt can help, who must act, and what to do."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Blame(StrEnum):
    """Who has to act."""

    AGENT = "agent"  # the model's work: another attempt may do better
    CREDENTIAL = "credential"  # the account or key that the CLI uses
    PROVIDER = "provider"  # the model's servers, and the network to them
    TEMPLATE = "template"  # the CLI's template in fleet.toml
    HOST = "host"
    FORGE = "forge"
    OPERATOR = "operator"  # a person or a budget ended it


@dataclass(frozen=True)
class Failure:
    """One row. `transient`: the task is tried again while it has retries left."""

    transient: bool
    blame: Blame
    meaning: str
    advice: str


_A, _C, _P, _T, _H, _F, _O = Blame
_AGAIN = "Nothing: it is tried again."
_SIGN_IN = "Sign the CLI in on the host, or replace its key, then `fleet clis open`."

TABLE: Mapping[str, Failure] = {
    # limits: the task waits, no attempt is spent
    "usage_limit": Failure(True, _C, "the plan's usage limit is reached", "Nothing: it goes on after the reset."),
    "rate_limited": Failure(True, _C, "too many requests for this key (429)", "Nothing: it goes on after a pause."),
    "quota": Failure(True, _C, "the account has no credit left", "Top up the account; it is tried again meanwhile."),
    "budget": Failure(False, _O, "a budget is spent", "`fleet task raise` gives it more."),
    # the credential and the provider
    "auth": Failure(False, _C, "the key or login was refused (401, 403)", _SIGN_IN),
    "not_logged_in": Failure(False, _C, "the CLI has no key or login on that host", _SIGN_IN),
    "overloaded": Failure(True, _P, "the model is overloaded (503, 529)", _AGAIN),
    "server_error": Failure(True, _P, "the model's server failed (5xx)", _AGAIN),
    "network": Failure(True, _P, "the connection to the model failed or was cut", _AGAIN),
    "context_window": Failure(False, _A, "the model's context window is full", "Split the issue into smaller ones."),
    "bad_request": Failure(False, _T, "the model refused the request (400, 404)", "Check model and flags of the CLI."),
    # how the CLI was called
    "bad_flag": Failure(False, _T, "the CLI does not know one of its flags", "Compare `fleet clis show` with --help."),
    "not_as_root": Failure(False, _T, "the CLI refuses these rights to root", "Work as another user on that host."),
    "no_session": Failure(True, _H, "the session to go on with is not there", "Nothing: a fresh one takes over."),
    "session_in_use": Failure(True, _H, "the session is in use", "Nothing: a fresh one takes over."),
    "no_repository": Failure(False, _T, "the CLI wants to work in a git repository", "Give the task a repository."),
    "empty_prompt": Failure(False, _T, "the CLI was given no prompt", "Check `prompt` in its template."),
    "cli_missing": Failure(False, _H, "the CLI is not installed there", "Install it, or take its slots away."),
    "not_started": Failure(True, _H, "the CLI ended before it said anything", "Read stderr: `fleet logs`."),
    # the work
    "max_turns": Failure(True, _A, "the CLI's own limit of turns is reached", "Nothing: the session goes on."),
    "denied": Failure(False, _T, "the CLI was not allowed to do what it needed", "Allow those tools in its template."),
    "cli_failed": Failure(True, _A, "the CLI says that it failed", _AGAIN),
    "agent_failed": Failure(True, _A, "the agent reported a failure", _AGAIN),
    "partial": Failure(False, _A, "the agent did a part of it", "Look at the branch, then decide."),
    "validation_failed": Failure(True, _A, "the repository's own checks failed", _AGAIN),
    # how it ended
    "killed": Failure(True, _O, "a signal ended the CLI", _AGAIN),
    "cut_off": Failure(True, _H, "the output ends before its last word", _AGAIN),
    "unreadable": Failure(True, _T, "the output says nothing its parser knows", "Check `parser` in its template."),
    "timed_out": Failure(True, _A, "it took longer than it may", "Allow more time, or split the issue."),
    "silent": Failure(True, _A, "it printed nothing for too long", _AGAIN),
    "lost": Failure(True, _H, "its supervisor is gone", _AGAIN),
    "host_unreachable": Failure(True, _H, "its host does not answer", "`fleet hosts test` says why."),
    "cannot_start": Failure(False, _T, "its host cannot be asked as declared", "Read the reason; check fleet.toml."),
    "disk_full": Failure(True, _H, "its disk is full", "Make room on the host; `fleet hosts list` shows how much."),
    "prepare_failed": Failure(True, _H, "the worktree could not be made ready", "Read the reason: disk, git, forge."),
    "submodule_changed": Failure(False, _A, "it changed a submodule; none is pushed", "Have that changed by itself."),
    "lfs_missing": Failure(True, _H, "its files are in Git LFS, and its host has none", "Install git-lfs there."),
    "hook_failed": Failure(False, _T, "a hook of .fleet.toml failed", "Mend the hook on the default branch."),
    "push_refused": Failure(True, _F, "the branch could not be pushed", "Check the bot's rights on the forge."),
    "branch_moved": Failure(True, _A, "another push conflicts with it", "Nothing: the next attempt merges it."),
    "branch_rewritten": Failure(False, _O, "commits were taken back from its branch", "Look at it and `wip/`; retry."),
    "pull_refused": Failure(False, _F, "the pull request could not be opened", "Check the bot's rights on the forge."),
}  # fmt: skip

LIMITS = frozenset({"usage_limit", "rate_limited", "quota"})  # these close the credential for a while
REFUSALS = frozenset({"auth", "not_logged_in"})  # these until a person opens it again, or a run got through


def page() -> str:
    """The content of docs/failures.md."""
    rows = [
        f"| `{name}` | {row.meaning} | {_tried_again(name)} | {row.blame} | {row.advice} |"
        for name, row in TABLE.items()
    ]
    return "\n".join([_HEAD, *rows, ""])


def _tried_again(name: str) -> str:
    if name in LIMITS | REFUSALS:
        return "after a pause"
    return "yes" if TABLE[name].transient else "no"


_HEAD = """# Why a run failed

Made from `app/domain/failures.py` by `make docs`; a test fails when this page and the table differ. A run that failed
bears one of these names: in `fleet task show`, in the comment on the issue, in `fleet clis parse`.
*After a pause*: no attempt is spent, the task is parked and the credential closed ([clis.md](clis.md#limits)).

| name | what happened | tried again by itself | whose affair | what to do |
|---|---|---|---|---|"""
