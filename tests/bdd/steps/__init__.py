"""Steps by who acts or is looked at; conftest.py imports them all by star."""
