"""The programs that operators and Pacemaker start."""
