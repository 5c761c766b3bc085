"""The wire models: what daemons, keeper and scripts say to each other. Import from the submodules."""

import os

# We have no plugins of pydantic; to look for some it would read what every installed package says of itself, which
# takes a twentieth of a daemon's start.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
