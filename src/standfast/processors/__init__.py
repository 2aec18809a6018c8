"""Service processors, and the bridge to fence agents."""
