"""The hive: the daemon on every machine that computes. It has devices, models and workers, and owns its workers."""
