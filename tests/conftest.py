"""Settings that all tests share; what they add to pytest stands in tests/plugins/."""

from hypothesis import settings

# A loaded machine is slow now and then; that an example took long is no finding here.
settings.register_profile("trio_lifecycle", deadline=None, print_blob=True)
settings.load_profile("trio_lifecycle")
