"""How much memory DuckDB may take, in what it understands as a setting."""

from __future__ import annotations

# Of each connection to the warehouse; SQLMesh's own takes the same (sqlmesh_project/config.py).
MEMORY_LIMIT = "4GB"
