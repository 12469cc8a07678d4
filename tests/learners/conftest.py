"""Time is not what these tests measure: the first call into PyTorch may take a second."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
