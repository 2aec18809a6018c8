"""The seeded simulator: the production core among simulated nodes, hosts, network, store and fencer.

``standfast sim --seed N --runs N``. One seed is one run, and replays exactly. Nothing in here uses a clock, a
thread or the machine's randomness; checkers.py judges what really happened and imports nothing of the core.
"""
