"""One client does everything that hostile clients do, beside an honest one: `python -m tests.hostile`."""
