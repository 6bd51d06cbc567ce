"""Exception groups that nurseries of ours make, and users shall not see."""


def only(error: BaseException) -> BaseException:
    """Take a single error out of the groups that nurseries of ours made of it.

    It is Ctrl-C while they were at work, or what a plug-in's own task raised.
    """
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
