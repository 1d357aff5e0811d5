"""The key that opens the sandbox's DeBank, and nothing else."""

DEBANK_KEY = "sandbox-debank-access-key"
