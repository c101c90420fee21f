"""The map of the house. A floor imports only from the floors below it (`setup.cfg` checks that).

    web  cli                       the processes people start; `workers/` stands beside them
    api  webhooks  dashboard       the faces: HTTP in, rows out
    wiring                         config -> engine, forges, nudge
    services                       what can happen, one verb a file
    store  forgejo                 how it is remembered; the forge in our words
    ports                          what we need from outside
    domain  config                 what is true; every setting

Words: a task is what is wanted, a run one attempt at it, a place a host or an agent, a fact what
happened, an event a fact written down, an outbox entry a side effect to perform for it. `docs/architecture.md`
tells the rest.
"""
