"""The one error users see: what is wrong, where, and what to do about it."""


class TalError(ValueError):
    """Bad input or a bad request, worded for the person who can mend it.

    `where` names the file and, if there is one, the recording; `remedy` says what to do.
    """

    def __init__(self, problem: str, *, where: object = None, remedy: str | None = None):
        text = f"{where}: {problem}" if where is not None else problem
        super().__init__(f"{text.rstrip('.')}. {remedy}" if remedy else text)
