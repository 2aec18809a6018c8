"""standfastd: watch, reconcile, test, alarm."""
