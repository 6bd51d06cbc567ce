"""What went wrong, in one sentence for whoever has asked."""

from pathlib import Path

from trio_lifecycle import (
    BinaryNotFoundError,
    DiedBeforeReadyError,
    PreflightError,
)


def sentence_of(error: Exception, what: str) -> str:
    """Say why a program could not be had.

    Args:
        error: What its lifecycle raised, or whatever else was in the way.
        what: What was wanted of it, such as "the model 'pydoc' can't be loaded".
    """
    if isinstance(error, BinaryNotFoundError) and error.near_misses:
        return f"{what}: {'; '.join(error.near_misses)}"
    if isinstance(error, BinaryNotFoundError):
        where = f"neither in {Path(error.searched[0]).parent} nor on the PATH of that machine"
        return f"{what}: {error.name} is {where}; install trio_lifecycle there, with its extra demo"
    if isinstance(error, PreflightError):
        return f"{what}: {'; '.join(error.failures)}"
    lines = getattr(error, "output_tail", "").splitlines()
    # A traceback of several errors has a frame around it.
    words = [line.strip(" |") for line in lines if any(map(str.isalpha, line))]
    if isinstance(error, DiedBeforeReadyError) and error.exit_status == 1 and words:
        # Our programs say why on their last line.
        return f"{what}: {words[-1]}"
    ending = f' Its last words: "{words[-1]}"' if words else ""
    return f"{what}: {str(error).splitlines()[0]}{ending}"
