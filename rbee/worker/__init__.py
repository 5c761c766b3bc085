"""The worker: one model on one device, its tokens in slots."""
