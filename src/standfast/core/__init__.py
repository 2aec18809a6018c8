"""The decisions, pure: no clock, socket, file, process or randomness in here."""
