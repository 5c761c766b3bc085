"""The programs that `make` runs: set up the environment, lock its versions, show the main job."""
