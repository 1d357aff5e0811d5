"""Great Expectations on raw and curated: suites, checkpoints and Data Docs."""
