"""The daemon of a machine that computes: it detects devices, keeps models and runs workers."""
