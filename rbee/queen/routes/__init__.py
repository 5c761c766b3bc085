"""The queen's HTTP routes, one module for each noun."""
