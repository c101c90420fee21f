"""The control plane. A package imports only from packages below it; `setup.cfg` checks this.

    web  cli                 processes; `workers/` is beside them
    api  webhooks            HTTP in, rows out
    wiring                   settings -> database, forges, nudge
    broker  logs             Celery messages, log lines
    services                 what can happen to a task
    store  forgejo           the only SQL; the forge's API
    ports                    protocols for the outside world
    config                   environment and fleet.toml
    clis                     parsers of coding CLIs
    domain                   rules without I/O or clock

`docs/architecture.md` has the glossary and a table of all folders.
"""
