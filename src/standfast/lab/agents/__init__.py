"""Programs that are copied into lab nodes. Each runs alone, with the standard library only."""
