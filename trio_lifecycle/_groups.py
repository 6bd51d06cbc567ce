"""Exception groups that nurseries of ours make, and users shall not see."""


def only(error: BaseException) -> BaseException:
    """Take a single error out of the groups that nurseries of ours made of it.

    It is Ctrl-C while they were at work, or what a plug-in's own task raised.
    """
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def type_of(error: BaseException) -> str:
    """Name the type of an error; that of all in a group, if they are alike."""
    if isinstance(error, BaseExceptionGroup):
        types = {type_of(each) for each in error.exceptions}
        if len(types) == 1:
            return types.pop()
    return type(error).__name__
