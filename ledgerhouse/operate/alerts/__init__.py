"""Alerts: conditions, incidents over time, and the channels that notices are sent by."""
