"""`postroom demo`: four services, faults on purpose, and a ledger that has to add up."""
