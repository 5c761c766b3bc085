"""The scenarios of features/, run against real processes."""
