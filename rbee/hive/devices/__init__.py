"""Detect the devices of this machine and their memory."""
