"""The commands; each imports what it needs in the bodies of its functions, so that --help stays fast."""
