"""Carry requests to workers and their answers to clients."""
