"""The terminal side of the keeper."""
