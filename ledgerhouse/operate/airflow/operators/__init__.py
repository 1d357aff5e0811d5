"""Operators: one module per step of a run."""
