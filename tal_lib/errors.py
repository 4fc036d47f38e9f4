"""The one error that users see: what is wrong, where, and what to do."""


def one_line(text: object) -> str:
    """Text for one printed line: control characters and undecodable bytes of names are escaped."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in str(text)
    )


class TalError(ValueError):
    """Bad input or a bad request, with a message for the person who can correct it.

    `where` names the file and, if any, the recording; `remedy` says what to do.
    """

    def __init__(self, problem: str, *, where: object = None, remedy: str | None = None):
        self.problem, self.where, self.remedy = problem, where, remedy
        text = one_line(f"{where}: {problem}" if where is not None else problem)
        super().__init__(f"{text.rstrip('.')}. {remedy}" if remedy else text)

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: the message alone, because the remedy is not in this library's code."""
        return [f"TalError: {self}"]

    def at(self, where: object) -> "TalError":
        """The same error, with `where` before the place that it already names."""
        place = where if self.where is None else f"{where}: {self.where}"
        return TalError(self.problem, where=place, remedy=self.remedy)


def short(value, length: int = 80) -> str:
    """A value as Python writes it, shortened if it is long."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**length:
        return "a huge integer"  # Python cannot print an integer of more than 4,300 digits
    try:
        text = repr(value)
    except ValueError:  # a list with such an integer
        return f"a {type(value).__name__} with a huge integer"
    return text if len(text) <= length else text[: length - 1] + "…"
