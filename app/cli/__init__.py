"""The `fleet` command: for the operator at a terminal, tables for people and `--json` for programs."""
