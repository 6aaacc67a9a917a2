"""The one exception that users are meant to see, and others' words in one line."""


class QvlibError(Exception):
    """A problem the user can mend: the message names the thing and the remedy, in one line.

    Programming errors keep their own types and tracebacks; whatever is wrong with
    parameters, files, data or servers ends here, and the command line prints only
    the message and exits with 2.
    """


def one_line(error: Exception, longest: int = 200) -> str:
    """The first line of an error's words, ``longest`` characters at most; its type without any."""
    words = str(error).strip()
    return words.splitlines()[0][:longest] if words else type(error).__name__
