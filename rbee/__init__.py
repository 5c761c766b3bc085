"""rbee turns the machines that you already have into one private inference service."""

__version__ = "0.1.0"
