"""The messages and requests that daemons, keeper and scripts exchange; import from the submodules."""

import os

# pydantic would read the metadata of every installed package to find plugins, of which we have none: 5 % of a
# daemon's start.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
