"""The cluster engine: CIB, attrd, fencer, corosync.conf and its runtime values."""
