"""Models: what a reference means, where the bytes come from, and what is already here."""
