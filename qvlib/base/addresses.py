"""What may be wrong with where a server is and where its key is read.

The messages show neither: a key may stand in the wrong place.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit


def wrong_key_variable(name: str) -> str:
    """What is wrong with the name of the environment variable that holds the key.

    Empty if nothing is; a key itself is rarely such a name.
    """
    if re.fullmatch(r"[A-Z_][A-Z0-9_]*|", name):
        return ""
    return (
        "not the name of an environment variable in capitals; give a name such as "
        "OPENAI_API_KEY, never the key itself"
    )


def wrong_base_url(address: str) -> str:
    """What is wrong with a server's address; empty if nothing is."""
    try:
        url = urlsplit(address)
        if url.username or url.password or url.query:
            return (
                "it holds a password, a key or a query; "
                "leave it out and put the key into the environment"
            )
        right = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:  # of a port or a bracket
        right = False
    return "" if right else "no web address; give one like http://localhost:8000/v1"
