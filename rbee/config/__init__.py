"""Settings, paths, keys, and locks between processes."""
