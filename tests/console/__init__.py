"""The queen's page in a real browser, Debian's Chromium, against real daemons."""
