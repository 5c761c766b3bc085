"""Kill daemons at random moments, under load, and see that nothing promised is broken."""
