"""`make demo`: two years of books through the real stack, against the sandbox: see `__main__`."""
