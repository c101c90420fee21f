"""The forge's API and webhooks: HTTP client, typed answers, webhook payloads and their signature."""
