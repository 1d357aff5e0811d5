"""From raw to curated: touched days, SQLMesh, rebuild and comparison."""
