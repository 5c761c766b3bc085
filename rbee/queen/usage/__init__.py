"""What clients use, by model and day: counted in memory, kept in the queen's database."""
