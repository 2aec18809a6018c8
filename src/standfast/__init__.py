"""Standfast takes a cluster of virtual machines through the live migration of one of them."""

__version__ = "0.1.0"
