"""Keeps to limits: a credential that met one is closed for every task on every host; and to budgets of ours."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from app.domain.lifecycle import Fact, What
from app.domain.place import Host, Slots
from app.domain.quota import Amount, Spent, spent_out
from app.domain.run import Outcome, Verdict
from app.domain.task import Task
from app.ports import Fleet
from app.store import places, quota, tasks, views
from app.store.tables import Row

LONGEST_CHAIN = 5


@dataclass(frozen=True)
class Doors:
    """Which kinds of CLI may be started now. `closed` says of each that may not, why; `trial` are those whose limit is
    over by the clock: one run tries, the others wait for how it ends."""

    closed: Mapping[str, str]
    trial: Mapping[str, str]
    credentials: Mapping[str, str]
    failovers: Mapping[str, tuple[str, ...]]

    def on(self, hosts: list[Host]) -> list[Host]:
        """The hosts as they are, with the slots closed that nobody may use."""
        return [replace(host, slots=tuple(self._shut(slots) for slots in host.slots)) for host in hosts]

    def placed(self, cli: str) -> "Doors":
        """After a run of `cli` was placed: where that is the one that tries, the door is closed behind it."""
        name = self.credentials.get(cli, cli)
        if name not in self.trial.values():
            return self
        mates = {kind: _TRIES for kind, credential in self.trial.items() if credential == name}
        return replace(self, closed={**self.closed, **mates})

    def instead_of(self, cli: str | None) -> list[str]:
        """The CLIs that take over while the limit of `cli` stands, in their order, each once."""
        chain, todo = [cli], list(self.failovers.get(cli or "", ()))
        while todo and len(chain) <= LONGEST_CHAIN:
            next_ = todo.pop(0)
            if next_ not in chain:
                chain.append(next_)
                todo += self.failovers.get(next_, ())
        return [name for name in chain[1:] if name] if cli in self.closed else []

    def _shut(self, slots: Slots) -> Slots:
        why = self.closed.get(slots.agent_type)
        return replace(slots, closed=why) if why else slots


_TRIES = "a run tries whether its limit is over"


def doors(conn: Connection, at: datetime) -> Doors:
    """The doors as they are at `at`."""
    declared = {row["name"]: row["template"] for row in places.all_clis(conn)}
    kinds = {slots.agent_type for host in places.all_hosts(conn) for slots in host.slots} | set(declared)
    credentials = {kind: declared.get(kind, {}).get("credential") or kind for kind in kinds}
    limited = {row["name"]: row for row in quota.all_credentials(conn) if row["closed_until"]}
    going = quota.runs_by_cli(conn) if limited else {}
    busy = {credentials.get(kind, kind) for kind, count in going.items() if count}
    closed, trial = {}, {}
    for kind, name in credentials.items():
        if name in limited and limited[name]["closed_until"] > at:
            closed[kind] = f"the limit of {name} is reached until {views.moment(limited[name]['closed_until'])}"
        elif name in limited:
            trial[kind] = name
            closed |= {kind: _TRIES} if name in busy else {}
    failovers = {kind: tuple(template.get("failover") or ()) for kind, template in declared.items()}
    return Doors(closed, trial, credentials, failovers)


def met(conn: Connection, run: Row, outcome: Outcome, fact: Fact, at: datetime) -> Fact:
    """What the end of a run says of the credential it used: limited, or not. The fact with the moment at which the task
    may go on: at once, where another CLI takes over."""
    name = credential_of(conn, run)
    if outcome.warning:
        quota.warn(conn, name, outcome.warning, at)
    if outcome.verdict is Verdict.SUCCEEDED:
        quota.open_(conn, name, since=run["assigned_at"])
    if fact.what is not What.LIMIT_REACHED or fact.detail.get("reason") != "limit":
        return fact
    until = quota.close(conn, name, outcome.resets_at, f"{outcome.failure}: {outcome.error or ''}", at)
    now = doors(conn, at)
    others = [cli for cli in now.instead_of(run["agent_type"]) if cli not in now.closed]
    return replace(fact, detail={**fact.detail, "until": (at if others else until).isoformat()})


def credential_of(conn: Connection, run: Row) -> str:
    """By what a run pays: the kind of CLI on hosts, or what fleet.toml names; an agent brings its own."""
    if not run["host_id"]:
        return f"agent {run['agent_id']}"
    return str((places.cli(conn, run["agent_type"] or "") or {}).get("credential") or run["agent_type"])


def held_back(fleet: Fleet, run: Row) -> Spent | None:
    """Why a run that is about to be started is not: its credential was closed meanwhile, or its budget is used up."""
    at = fleet.clock()
    with fleet.engine.begin() as conn:
        name = credential_of(conn, run)
        row = next((row for row in quota.all_credentials(conn) if row["name"] == name), None)
    if row and row["closed_until"] and row["closed_until"] > at:
        return Spent(f"the limit of {name} is reached", row["closed_until"], "limit")
    return over_budget(fleet, run)


def over_budget(fleet: Fleet, run: Row) -> Spent | None:
    """The budget that a run, its task or its repository has used up, or None."""
    at = fleet.clock()
    with fleet.engine.begin() as conn:
        task = tasks.load(conn, run["task_pk"])
        rule = _rule(conn, task)
        if not rule or not rule["budget"]:
            return None
        extra = quota.allowance(conn, task.id)
        return spent_out(rule["budget"], quota.used(conn, task, run["id"], at), extra, at)


def budgets_there_are(conn: Connection) -> bool:
    return quota.any_budget(conn)


def shall_end(fleet: Fleet, run: Row, spent: Spent) -> None:
    """Write down why a run is about to be ended, so that its end is understood whoever hears of it."""
    why = {"reason": "budget", "why": spent.why, "until": spent.until and spent.until.isoformat()}
    with fleet.engine.begin() as conn:
        quota.stop_for(conn, run["id"], why)


def raise_budget(fleet: Fleet, task_id: str, more: Amount) -> Task:
    """A person allows a task to use more; one that is parked for its budget goes on. Raises Refused."""
    with fleet.engine.begin() as conn:
        task = tasks.find(conn, task_id)
        quota.allow(conn, task.id, more)
        task = tasks.record(conn, task.id, Fact(What.RAISED, vars(more)), fleet.clock())
    fleet.nudge.soon()
    return task


def reopen(fleet: Fleet, name: str) -> bool:
    """A person says that a credential's limit is over."""
    with fleet.engine.begin() as conn:
        done = quota.open_(conn, name)
    fleet.nudge.soon()
    return done


def switched_off(conn: Connection) -> list[str]:
    """The repositories whose rule says `enabled = false`, as `forge id`."""
    found = []
    for row in places.all_repositories(conn):
        rule = places.rule_for(conn, row["forge"], row["full_name"])
        if rule and not rule["enabled"]:
            found.append(f"{row['forge']} {row['id']}")
    return found


def off(conn: Connection, task: Task) -> str | None:
    """Why no run of a task is started though there is room, if its repository is switched off."""
    rule = _rule(conn, task)
    return "its repository is switched off: enabled = false in fleet.toml" if rule and not rule["enabled"] else None


def _rule(conn: Connection, task: Task) -> Row | None:
    row = places.repository(conn, task.forge, task.repository_id) if task.forge and task.repository_id else None
    return places.rule_for(conn, task.forge or "", row["full_name"]) if row else None


def limits(conn: Connection) -> list[dict[str, Any]]:
    """Every credential that met a limit or is near one, for people."""
    return [
        {"credential": row["name"], **{name: row[name] for name in ("why", "tries", "warning")},
         "closed_until": views.moment(row["closed_until"]), "told_at": views.moment(row["told_at"])}
        for row in quota.all_credentials(conn)
    ]  # fmt: skip
