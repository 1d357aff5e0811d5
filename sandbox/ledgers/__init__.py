"""What the exchanges of the sandbox that list a ledger share: their history, its truth, their routes.

`history` an account day after day, whose every row carries the balance after it · `truth` what is
reported, what the rows tell, and why they differ · `api` routes with a key, a limit and pages.
"""
