"""The HTTP routes of the hive."""
