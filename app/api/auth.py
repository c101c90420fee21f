"""Who may come in: operators and viewers by the tokens of the settings, agents by their own. Hashes are compared."""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import wraps
from typing import ParamSpec, TypeVar

from flask import current_app, g, request
from werkzeug.exceptions import HTTPException

from app.domain.errors import Kind, Refused
from app.ports import Fleet
from app.services.agents import registry
from app.services.agents.registry import hash_of
from app.store import agents
from app.store.engine import reading

P = ParamSpec("P")
R = TypeVar("R")


class Role(StrEnum):
    """Whose token was shown. An operator may do what a viewer may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    AGENT = "agent"


_TOKENS = (("FLEET_OPERATOR_TOKEN", Role.OPERATOR), ("FLEET_VIEWER_TOKEN", Role.VIEWER))


@dataclass(frozen=True)
class Caller:
    """Who calls; `agent_id` is None for people."""

    role: Role
    agent_id: str | None = None


def fleet() -> Fleet:
    """What this application works with."""
    found: Fleet = current_app.extensions["fleet"]
    return found


def only(*roles: Role) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let only callers with one of these roles through to the decorated view."""

    def guarded(view: Callable[P, R]) -> Callable[P, R]:
        @wraps(view)
        def guard(*args: P.args, **kwargs: P.kwargs) -> R:
            let_in(*roles)
            return view(*args, **kwargs)

        return guard

    return guarded


def else_only(*roles: Role) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """For a view that sees itself to who calls: where a request is not in order, whoever may not come in hears that
    first."""

    def guarded(view: Callable[P, R]) -> Callable[P, R]:
        @wraps(view)
        def guard(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return view(*args, **kwargs)
            except HTTPException:
                let_in(*roles)
                raise
            except Refused as refused:
                if refused.kind is Kind.INVALID:
                    let_in(*roles)
                raise

        return guard

    return guarded


def knocking(view: Callable[P, R]) -> Callable[P, R]:
    """Let only those through who may register an agent; whether it may be this one is seen when its name is known."""

    @wraps(view)
    def guard(*args: P.args, **kwargs: P.kwargs) -> R:
        registry.knock(fleet(), shown())
        return view(*args, **kwargs)

    return guard


def let_in(*roles: Role, by: str | None = None) -> None:
    """Let a caller with one of these roles in, `by` the token that the request shows, or raise Refused."""
    if fleet().config.secret("FLEET_OPERATOR_TOKEN") is None and Role.AGENT not in roles:
        raise Refused(Kind.UNAUTHORIZED, "No operator token is set: set FLEET_OPERATOR_TOKEN for the web process.")
    g.caller = _who(shown() if by is None else by)
    if g.caller.role not in roles:
        takes = " or ".join(roles)
        raise Refused(Kind.FORBIDDEN, f"A token of role '{g.caller.role}' may not do this; it takes {takes}.")


def caller() -> Caller:
    """Who was let in."""
    found: Caller = g.caller
    return found


def as_agent(agent_id: str) -> str:
    """The agent that speaks, which must be the one that the request names. Raises Refused."""
    own = caller().agent_id
    if own != agent_id:
        with reading(fleet().engine) as conn:
            known = agents.get(conn, agent_id)
        if known is None:
            raise Refused(Kind.UNKNOWN, f"There is no agent {agent_id!r}: register it first.")
        raise Refused(Kind.FORBIDDEN, f"This token is that of agent {own!r}, not of {agent_id!r}.")
    return agent_id


def shown() -> str:
    """The bearer token that the request shows, empty if none. No other scheme: what a browser keeps and sends by
    itself would let other sites' pages speak for whoever reads ours."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def typed_in() -> str:
    """The token that somebody gave a browser as a password, empty if none. For pages that only show."""
    given = request.authorization
    return (given.password or "") if given is not None and given.type == "basic" else ""


def _who(token: str) -> Caller:
    for name, role in _TOKENS:
        expected = fleet().config.secret(name)
        if expected and hmac.compare_digest(hash_of(token), hash_of(expected)):
            return Caller(role)
    with reading(fleet().engine) as conn:
        agent_id = agents.with_token(conn, hash_of(token), fleet().clock()) if token else None
    if agent_id is None:
        raise Refused(Kind.UNAUTHORIZED, "Show a valid token: Authorization: Bearer <token>.")
    return Caller(Role.AGENT, agent_id)
