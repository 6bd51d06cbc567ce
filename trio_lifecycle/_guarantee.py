"""How much is promised for the end of a daemon."""

from typing import Final, Literal, get_args

Guarantee = Literal["guarded", "contained", "scoped", "detached"]
"""What becomes of a daemon when the program that started it ends, however it ends.

- ``"guarded"``: nothing of it is left, also after SIGKILL of the program; by a helper process.
- ``"contained"``: the same, and it can't leave the control group (cgroup v2) that it is in.
- ``"scoped"``: it goes with the block that owns it; not after SIGKILL of the program.
- ``"detached"``: it stays.
"""

# What a spawner can be asked for; to stay is asked for by ``detach=True``.
OWNED: Final = tuple(level for level in get_args(Guarantee) if level != "detached")
