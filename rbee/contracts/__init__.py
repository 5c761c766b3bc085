"""The wire models: what daemons, keeper and scripts say to each other. Import from the submodules."""
