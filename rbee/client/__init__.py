"""Typed clients of the daemons' HTTP interfaces. Import from the submodules."""
