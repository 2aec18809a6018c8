"""Real clusters and emulated hosts on one machine."""
