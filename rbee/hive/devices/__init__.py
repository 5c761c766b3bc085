"""What this machine computes with: one module per backend, and the probe that asks them safely."""
