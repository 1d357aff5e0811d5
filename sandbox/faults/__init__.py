"""Limits, faults and spoiled answers, and the counting of every call."""
