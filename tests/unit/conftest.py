"""Settings of the unit tier."""

from hypothesis import settings

# A busy machine is no failure: what an example takes is nothing that these tests are about.
settings.register_profile("standfast", deadline=None)
settings.load_profile("standfast")
