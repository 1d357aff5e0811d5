"""Asking an API: the client, rate limits, requests, the backward walk, call log and landing."""
