"""Closes a credential for all tasks after a usage limit or a refused login, and opens it again."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import Connection

from app.domain.errors import Refused
from app.domain.failures import REFUSALS
from app.domain.host import Host, Slots
from app.domain.lifecycle import Fact, FactKind
from app.domain.quota import Spent
from app.domain.run import Outcome, Run, Verdict
from app.domain.task import Task
from app.ports import Fleet
from app.services.dispatch import budgets
from app.store import fleet_config, repositories, runs, tasks, usage, views
from app.store import hosts as host_rows
from app.store.tables import Row

LONGEST_CHAIN = 5
log = structlog.get_logger()


@dataclass(frozen=True)
class ClosedCredentials:
    """Which kinds of CLI may be started now.

    `closed`: kinds that may not, and why. `closed_on_hosts`: logins that are closed on one host, and why.
    `trial`, `trial_on_hosts`: those whose pause is over. One run tries; the others wait for its end.
    """

    closed: Mapping[str, str]
    trial: Mapping[str, str]
    credentials: Mapping[str, str]
    failovers: Mapping[str, tuple[str, ...]]
    closed_on_hosts: Mapping[str, str]
    trial_on_hosts: frozenset[str]

    def close_slots(self, hosts: list[Host]) -> list[Host]:
        """The hosts, with the slots closed that no run may use now."""
        return [replace(host, slots=tuple(self._close(host, slots) for slots in host.slots)) for host in hosts]

    def after_placing(self, cli: str, host_id: str) -> "ClosedCredentials":
        """After a run of `cli` was placed: if it is the one that tries, no other may."""
        name = self.credentials.get(cli, cli)
        same = {kind: _TRIAL for kind, credential in self.trial.items() if credential == name}
        here = {login_on_host(name, host_id)} & self.trial_on_hosts
        return replace(
            self,
            closed={**self.closed, **same},
            closed_on_hosts={**self.closed_on_hosts, **dict.fromkeys(here, _TRIAL)},
        )

    def replacements_of(self, cli: str | None) -> list[str]:
        """The CLIs that replace `cli` while its credential is closed, in order, each once."""
        chain, todo = [cli], list(self.failovers.get(cli or "", ()))
        while todo and len(chain) <= LONGEST_CHAIN:
            next_ = todo.pop(0)
            if next_ not in chain:
                chain.append(next_)
                todo += self.failovers.get(next_, ())
        return [name for name in chain[1:] if name] if cli in self.closed else []

    def why_closed(self, cli: str, host_id: str) -> str | None:
        """Why no run of a CLI may be started on a host; None if one may."""
        return self.closed.get(cli) or self.closed_on_hosts.get(login_on_host(self.credentials.get(cli, cli), host_id))

    def _close(self, host: Host, slots: Slots) -> Slots:
        why = self.why_closed(slots.agent_type, host.host_id)
        return replace(slots, closed=why) if why else slots


_TRIAL = "a run tries whether its limit is over, or its login good again"


def closed_credentials(conn: Connection, at: datetime) -> ClosedCredentials:
    """Which kinds of CLI may be started at `at`."""
    declared = fleet_config.cli_templates(conn)
    kinds = {slots.agent_type for host in host_rows.all_hosts(conn) for slots in host.slots} | set(declared)
    credentials = {kind: declared.get(kind, {}).get("credential") or kind for kind in kinds}
    rows = {row["name"]: row for row in usage.all_credentials(conn) if row["closed_until"]}
    closed = {name: _describe(row) for name, row in rows.items() if row["closed_until"] > at}
    tried = rows.keys() - closed.keys()
    closed |= dict.fromkeys(tried & _in_use(conn, credentials), _TRIAL) if tried else {}
    return ClosedCredentials(
        closed={kind: closed[name] for kind, name in credentials.items() if name in closed},
        trial={kind: name for kind, name in credentials.items() if name in tried},
        credentials=credentials,
        failovers={kind: tuple(template.get("failover") or ()) for kind, template in declared.items()},
        closed_on_hosts={name: why for name, why in closed.items() if "@" in name},
        trial_on_hosts=frozenset(name for name in tried if "@" in name),
    )


def _in_use(conn: Connection, credentials: Mapping[str, str]) -> set[str]:
    """The credentials that open runs use, on any host and on each host."""
    going = [
        (credentials.get(kind, kind), host_id) for (host_id, kind), count in runs.count_by_slot(conn).items() if count
    ]
    return {name for name, _ in going} | {login_on_host(name, host_id) for name, host_id in going}


def _describe(row: Row) -> str:
    name, moment = row["name"], views.moment(row["closed_until"])
    if not row["refused"]:
        return f"the limit of {name} is reached until {moment}"
    return f"the login of {name} was refused: mend it, then `fleet clis open {name}`; a run tries it at {moment}"


def login_on_host(credential: str, host_id: str) -> str:
    """The name of a login on one host: `codex@build-1`."""
    return f"{credential}@{host_id}"


def apply_outcome(conn: Connection, run: Run, outcome: Outcome, fact: Fact, at: datetime) -> Fact:
    """Close or open the credential that a run used, as its end says. Returns the fact to record.

    The fact gets the moment at which the task may continue: at once if another CLI or host can. A refused login costs
    the task no attempt: it waits.
    """
    name = credential_of(conn, run)
    if outcome.warning:
        usage.record_warning(conn, name, outcome.warning, at)
    if outcome.verdict is Verdict.SUCCEEDED:
        usage.reopen_credentials(conn, [name, login_on_host(name, run.host_id or "")], since=run.assigned_at)
    reason = fact.detail.get("reason")
    refused = fact.kind is FactKind.FAILED and reason in REFUSALS and bool(run.host_id)
    if not refused and not (fact.kind is FactKind.LIMIT_REACHED and reason == "limit"):
        return fact
    closed = login_on_host(name, run.host_id or "") if refused and reason == "not_logged_in" else name
    why = f"{outcome.failure}: {outcome.error or ''}"
    if refused:
        log.error("the login of a CLI was refused", credential=closed, host=run.host_id, why=why[:500])
    until = usage.close_credential(conn, closed, outcome.resets_at, why, at, refused)
    continues_at = at if _can_continue_elsewhere(conn, run, at) else until
    return replace(fact, kind=FactKind.LIMIT_REACHED, detail={**fact.detail, "until": continues_at.isoformat()})


def _can_continue_elsewhere(conn: Connection, run: Run, at: datetime) -> bool:
    """True if the task need not wait: its CLI may run on another host, or another CLI replaces it."""
    now, cli = closed_credentials(conn, at), run.agent_type or ""
    kinds = [cli, *now.replacements_of(cli)]
    open_ = [
        slots
        for host in now.close_slots(host_rows.all_hosts(conn))
        for slots in host.slots
        if host.takes_work and slots.agent_type in kinds and slots.max_concurrency and not slots.closed
    ]
    return bool(open_) and bool(run.host_id)


def credential_of(conn: Connection, run: Run) -> str:
    """The credential that a run uses: its kind of CLI, or the one of fleet.toml. An agent has its own."""
    if not run.host_id:
        return f"agent {run.agent_id}"
    return str((fleet_config.cli(conn, run.agent_type or "") or {}).get("credential") or run.agent_type)


def why_not_start(fleet: Fleet, run: Run) -> Spent | None:
    """Why a run must not be started now; None if it may.

    Its credential was closed meanwhile, its budget is used up, or its CLI has no price for a budget in dollars.
    """
    at = fleet.clock()
    with fleet.engine.begin() as conn:
        name = credential_of(conn, run)
        mine = (name, login_on_host(name, run.host_id or ""))
        closed = [
            row for row in usage.all_credentials(conn) if row["name"] in mine and (row["closed_until"] or at) > at
        ]
    for row in closed:
        return Spent(_describe(row), row["closed_until"], "auth" if row["refused"] else "limit")
    return budgets.over_budget(fleet, run) or budgets.why_unpriced(fleet, run)


def reopen(fleet: Fleet, name: str) -> bool:
    """Open a credential: everywhere, or on one host (`codex@build-1`). Waiting tasks continue at once."""
    credential, _, host_id = name.partition("@")
    with fleet.engine.begin() as conn:
        names = [row["name"] for row in usage.all_credentials(conn)]
        mine = [one for one in names if one == name or (not host_id and one.startswith(f"{name}@"))]
        opened = usage.reopen_credentials(conn, mine)
        for task in usage.parked_for(conn, _clis_of(conn, credential), host_id or None) if opened else ():
            with suppress(Refused):  # it moved meanwhile
                tasks.record(conn, task, Fact(FactKind.DUE), fleet.clock())
    fleet.nudge.soon()
    return bool(opened)


def _clis_of(conn: Connection, credential: str) -> list[str]:
    """The kinds of CLI that use a credential."""
    named = {cli: of.get("credential") or cli for cli, of in fleet_config.cli_templates(conn).items()}
    return [credential] * (credential not in named) + [cli for cli, name in named.items() if name == credential]


def switched_off(conn: Connection) -> list[str]:
    """The repositories whose rule says `enabled = false`, each as `FORGE ID`."""
    rules = fleet_config.all_rules(conn)
    if all(rule.enabled for rule in rules):
        return []
    found = [
        (row, fleet_config.first_rule(rules, row.forge, row.full_name)) for row in repositories.all_repositories(conn)
    ]
    return [f"{row.forge} {row.id}" for row, rule in found if rule and not rule.enabled]


def why_switched_off(conn: Connection, task: Task) -> str | None:
    """Why no run of a task is started: its repository is switched off. None if it is not."""
    rule = fleet_config.rule_of(conn, task.forge, task.repository_id)
    return "its repository is switched off: enabled = false in fleet.toml" if rule and not rule.enabled else None


def limits(conn: Connection) -> list[dict[str, Any]]:
    """Every credential that met a limit, is near one, or was refused, as JSON for people."""
    return [
        {"credential": row["name"], **{name: row[name] for name in ("why", "tries", "warning", "refused")},
         "closed_until": views.moment(row["closed_until"]), "told_at": views.moment(row["reported_at"])}
        for row in usage.all_credentials(conn)
    ]  # fmt: skip
