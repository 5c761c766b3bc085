"""Run the hive on the queen's own machine."""
