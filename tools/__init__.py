"""What `make` runs: set the environment up, lock its versions, show the main job."""
