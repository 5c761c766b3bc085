"""The worker: one model on one device, serving several requests at once."""
