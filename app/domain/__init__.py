"""What is true: tasks, their lifecycle, runs, places, prompts, receipts. No clock, no I/O."""
