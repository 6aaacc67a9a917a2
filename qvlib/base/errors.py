"""The one exception that users are meant to see."""


class QvlibError(Exception):
    """A problem the user can mend: the message names the thing and the remedy, in one line.

    Programming errors keep their own types and tracebacks; whatever is wrong with
    parameters, files, data or servers ends here, and the command line prints only
    the message and exits with 2.
    """
