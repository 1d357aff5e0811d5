"""From the landing into raw: merge, coverage, history, call log; and replay."""
