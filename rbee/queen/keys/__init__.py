"""Who may use the queen, for what, and what each has used."""
