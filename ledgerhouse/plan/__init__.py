"""What to ask next and what it costs: coverage, refresh, estimate and budget."""
