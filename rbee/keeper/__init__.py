"""The keeper: the command line `rbee-keeper` (short `rbee`), a client of the queen and the front end of the fleet."""
