"""Know the hives and workers of the fleet, start workers and end everything."""
