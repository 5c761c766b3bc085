"""Resolve model references, download models, and keep the catalog of this machine."""
