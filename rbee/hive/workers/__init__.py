"""Start worker processes, watch them, and stop them."""
