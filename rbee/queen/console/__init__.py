"""The console: a page that shows the fleet and acts on it, and the sessions of those who look at it."""
