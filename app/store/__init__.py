"""The database: the only package with SQL. `tasks.record` is the only writer of a task's state."""
