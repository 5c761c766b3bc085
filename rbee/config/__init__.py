"""Where settings come from, where files lie, and how keys are kept."""
