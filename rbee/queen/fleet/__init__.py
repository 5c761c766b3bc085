"""Keep in touch with the hives of the fleet, and start workers on them."""
