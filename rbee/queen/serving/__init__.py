"""Keep the declared models served: what is declared, what is to be done for it, and the loop that does it."""
