"""One worker for each core: a run is one seed and knows nothing of the others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest


@pytest.fixture(scope="session")
def workers() -> Iterator[ProcessPoolExecutor]:
    """Forked, so that they find what pytest has put on the path."""
    made = ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("fork"))
    try:
        yield made
    finally:
        made.shutdown(cancel_futures=True)
