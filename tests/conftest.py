"""Settings that all tests share; what they add to pytest stands in tests/plugins/."""

import signal

from hypothesis import settings

# A loaded machine is slow now and then; that an example took long is no finding here.
# Hypothesis's own 100 examples took two minutes of every run. Who has changed what a property is
# about looks longer, by `--hypothesis-profile=thorough`.
settings.register_profile("trio_lifecycle", deadline=None, print_blob=True, max_examples=40)
settings.register_profile("thorough", deadline=None, print_blob=True, max_examples=1000)
settings.load_profile("trio_lifecycle")

# A shell without job control starts what it puts into the background with SIGINT ignored, and the
# programs that the tests interrupt would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
