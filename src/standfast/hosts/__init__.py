"""Where guests run: one Protocol, an adapter for each kind of host."""
