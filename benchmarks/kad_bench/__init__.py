"""Measurements of this machine and of the software on it: imports every room, none imports it."""
