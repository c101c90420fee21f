"""The rules: tasks, their lifecycle, runs, hosts, prompts, receipts. No clock, no I/O."""
