"""Writes the JSON of the REST API, key for key: accounts, repositories, labels, statuses, hooks."""

from __future__ import annotations

from datetime import datetime

from .models import Hook, Issue, Json, Label, Repository, Status, User
from .store import Store
from .subscriptions import KNOWN

ZERO_TIME = "0001-01-01T00:00:00Z"
DRAFT = ("wip:", "[wip]")
FIXED_REPOSITORY: Json = {
    "has_issues": True,
    "internal_tracker": {
        "enable_time_tracker": True,
        "allow_only_contributors_to_track_time": True,
        "enable_issue_dependencies": True,
    },
    "has_wiki": True,
    "has_wiki_contents": False,
    "wiki_branch": "main",
}
FIXED_REPOSITORY_END: Json = {
    "globally_editable_wiki": False,
    "has_pull_requests": True,
    "has_projects": True,
    "has_releases": True,
    "has_packages": True,
    "has_actions": True,
    "ignore_whitespace_conflicts": False,
    "allow_merge_commits": True,
    "allow_rebase": True,
    "allow_rebase_explicit": True,
    "allow_squash_merge": True,
    "allow_fast_forward_only_merge": True,
    "allow_rebase_update": True,
    "default_delete_branch_after_merge": False,
    "default_merge_style": "merge",
    "default_allow_maintainer_edit": False,
    "default_update_style": "merge",
    "avatar_url": "",
    "internal": False,
    "mirror_interval": "",
    "object_format_name": "sha1",
    "mirror_updated": ZERO_TIME,
    "repo_transfer": None,
    "topics": [],
}


def when(moment: datetime | None) -> str | None:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None


def draft(title: str) -> bool:
    return title.lower().startswith(DRAFT)


def user(store: Store, one: User) -> Json:
    return {
        "id": one.id,
        "login": one.login,
        "login_name": "",
        "source_id": 0,
        "full_name": one.full_name,
        "email": store.email(one),
        "avatar_url": f"{store.url}/avatars/{one.id:032}",
        "html_url": f"{store.url}/{one.login}",
        "language": "",
        "is_admin": one.is_admin,
        "last_login": ZERO_TIME,
        "created": when(one.created),
        "restricted": False,
        "active": False,
        "prohibit_login": False,
        "location": "",
        "pronouns": "",
        "website": "",
        "description": "",
        "visibility": "public",
        "followers_count": 0,
        "following_count": 0,
        "starred_repos_count": 0,
        "username": one.login,
    }


def repository(store: Store, repo: Repository, viewer: User | None) -> Json:
    """`permissions` are the viewer's; in deliveries that is not always the one who acted."""
    ssh = f"ssh://git@{store.host}/{repo.full_name}"
    return {
        **_names_and_addresses(store, repo, ssh),
        **_counters(repo),
        "default_branch": repo.default_branch,
        "archived": repo.archived,
        "created_at": when(repo.created),
        "updated_at": when(repo.updated),
        "archived_at": "1970-01-01T00:00:00Z",
        "permissions": {
            name: store.may(viewer, needed, repo)
            for name, needed in (("admin", "admin"), ("push", "write"), ("pull", "read"))
        },
        **FIXED_REPOSITORY,
        "wiki_ssh_url": f"{ssh}.wiki.git",
        "wiki_clone_url": f"{html(store, repo)}.wiki.git",
        **FIXED_REPOSITORY_END,
    }


def _names_and_addresses(store: Store, repo: Repository, ssh: str) -> Json:
    web, api = html(store, repo), f"{store.url}/api/v1/repos/{repo.full_name}"
    return {
        "id": repo.id,
        "owner": user(store, repo.owner),
        "name": repo.name,
        "full_name": repo.full_name,
        "description": repo.description,
        "empty": False,
        "private": repo.private,
        "fork": False,
        "template": False,
        "parent": None,
        "mirror": False,
        "size": 128,
        "language": "Python",
        "languages_url": f"{api}/languages",
        "html_url": web,
        "url": api,
        "link": "",
        "ssh_url": f"{ssh}.git",
        "clone_url": f"{web}.git",
        "original_url": "",
        "website": "",
    }


def _counters(repo: Repository) -> Json:
    still_open = [issue for issue in repo.issues.values() if issue.state == "open"]
    return {
        "stars_count": 0,
        "forks_count": 0,
        "watchers_count": 2,
        "open_issues_count": sum(not issue.pull for issue in still_open),
        "open_pr_counter": sum(bool(issue.pull) for issue in still_open),
        "release_counter": 0,
    }


def html(store: Store, repo: Repository, issue: Issue | None = None) -> str:
    base = f"{store.url}/{repo.full_name}"
    return f"{base}/{'pulls' if issue.pull else 'issues'}/{issue.number}" if issue else base


def label(store: Store, repo: Repository, one: Label) -> Json:
    return {
        "id": one.id,
        "name": one.name,
        "exclusive": one.exclusive,
        "is_archived": one.is_archived,
        "color": one.color,
        "description": one.description,
        "url": f"{store.url}/api/v1/repos/{repo.full_name}/labels/{one.id}",
    }


def people(store: Store, some: list[User]) -> Json:
    everyone = [user(store, one) for one in some]
    return {"assignee": everyone[0] if everyone else None, "assignees": everyone or None}


def status(store: Store, repo: Repository, sha: str, one: Status) -> Json:
    return {
        "id": one.id,
        "status": one.state,
        "target_url": one.target_url,
        "description": one.description,
        "url": f"{store.url}/api/v1/repos/{repo.full_name}/statuses/{sha}",
        "context": one.context,
        "creator": user(store, one.creator),
        "created_at": when(one.created),
        "updated_at": when(one.created),
    }


def hook(one: Hook) -> Json:
    return {
        "id": one.id,
        "type": one.kind,
        "branch_filter": one.branch_filter,
        "url": one.url,
        "config": {"content_type": one.content_type, "url": one.url},
        "content_type": one.content_type,
        "events": [kind for kind in KNOWN if kind in one.wants],
        "authorization_header": one.authorization,
        "active": one.active,
        "metadata": None,
        "updated_at": when(one.updated),
        "created_at": when(one.created),
    }
