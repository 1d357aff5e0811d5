"""The DuckDB file: its lock, transactions, schema, views and migrations."""
