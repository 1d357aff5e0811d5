"""The run log: records of task attempts, and their mirror in ops.sync_runs."""
