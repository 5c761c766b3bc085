"""The keeper: the command line `rbee-keeper` (short `rbee`), which speaks to a queen over HTTP and to nothing else."""
