"""What the tests teach pytest: hygiene, needed programs, numbered faults, documents that run."""
