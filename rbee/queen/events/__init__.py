"""Report what is in the fleet and what changes there, as numbered events that a reader can take up again."""
