"""Client programs of others, installed in a cache of their own, against a real queen."""
