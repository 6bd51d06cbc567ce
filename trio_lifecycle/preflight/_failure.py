"""What a check says when all is not well."""


class CheckFailed(Exception):  # noqa: N818 - no error of ours: PreflightError gathers the sentences
    """What was found, and what to do about it: one sentence."""
