"""The forge in our words: its client, the deliveries it sends, their signature."""
