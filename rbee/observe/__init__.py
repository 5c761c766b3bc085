"""Logs without secrets, metrics, and trace ids."""
