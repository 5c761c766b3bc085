"""One module a command or group of commands; each imports what it needs in the bodies of its functions."""
