"""The reference agent: a program without a database that comes to the fleet for work, and does it with the supervisor.

`__main__` is what it is called by, `agent` its life. `server` speaks the contract's HTTP, `asking` dequeues, `pulse`
beats and hears news, `lookout` looks at the runs of this machine, `life` takes one task from its lease to its end,
`machine` calls the supervisor, `receipt` puts a run's end into words; `hold`, `folder` and `outbox` remember.
"""
