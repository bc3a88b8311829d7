"""A seeded simulator that runs the core against faults of the source and the warehouse, and judges what became of each file.

Nothing sleeps, no socket is opened and no thread runs beside another: a seed says all that happens, so one that
fails can be replayed. ``make soak SEED=… RUNS=…`` runs it; ``tests/unit/test_soak.py`` runs a small fixed part.
"""
