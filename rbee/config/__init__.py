"""Where settings come from, where files lie, how keys are kept, and how processes take turns."""
