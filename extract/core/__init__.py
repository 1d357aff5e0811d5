"""What every room speaks: intervals, datasets, the contract of a source, errors, redaction."""
