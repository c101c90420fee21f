"""Writes to the forges what outbox entries ask for: pull requests, comments, labels, receipts."""
