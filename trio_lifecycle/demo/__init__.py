"""Four programs that start each other, as a user of this package would write them.

``rbee-keeper`` (a command line) has ``queen-rbee`` running; that has an ``rbee-hive`` on each
machine; a hive has a worker for each model, ``llm-worker-rbee`` or ``embedding-worker-rbee``. What
starts a program stands in one file each, named after who does the starting: ``keeper_lifecycle``,
``queen_lifecycle``, ``hive_lifecycle`` and, for what one more program adds,
``embedding_lifecycle``. All else is what the programs are for.
"""
