"""Continuous batching: which tokens of which requests the engine evaluates next."""
