"""The histories of the sandbox's accounts and their ground truth."""
