"""Decide which worker serves a request, and in which order requests get their slots: all of it pure."""
