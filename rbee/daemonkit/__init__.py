"""What every daemon is made of: start, edge, streams, drain and end. Import from the submodules."""
