"""The one error users see: what is wrong, where, and what to do about it."""


def one_line(text: object) -> str:
    """Text for one printed line: control characters and undecodable bytes of names are escaped."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in str(text)
    )


class TalError(ValueError):
    """Bad input or a bad request, worded for the person who can mend it.

    `where` names the file and, if there is one, the recording; `remedy` says what to do.
    """

    def __init__(self, problem: str, *, where: object = None, remedy: str | None = None):
        text = one_line(f"{where}: {problem}" if where is not None else problem)
        super().__init__(f"{text.rstrip('.')}. {remedy}" if remedy else text)
