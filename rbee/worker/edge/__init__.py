"""The interfaces that other people's clients speak, each translated to the one core: wishes in, events out."""
