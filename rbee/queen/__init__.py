"""The brain: node registry, worker registry, placement, tasks and their relay."""
