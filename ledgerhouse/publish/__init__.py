"""The published books: the gate before them, Parquet files, books.duckdb, data frames."""
