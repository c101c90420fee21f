"""The `fleet` command: tables for people at a terminal, `--json` for programs."""
