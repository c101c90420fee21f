"""How it is remembered: the only floor with SQL. Tasks move through one door, `tasks.record`."""
