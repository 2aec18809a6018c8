"""Real clusters on one machine, for tests, demonstrations and measurements.

The product never imports this package (import-linter proves it); commands reach it lazily.
"""
