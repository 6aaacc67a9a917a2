"""What may be wrong with where a server is, how it is reached, and where its key is read.

The messages show neither address nor key: a key may stand in the wrong place.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import re
from urllib.parse import unquote, urlsplit
from urllib.request import proxy_bypass_environment

from qvlib.base.keys import looks_like_key

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def wrong_key_variable(name: str) -> str:
    """What is wrong with the name of the environment variable that holds the key.

    Empty if nothing is; a key itself is rarely such a name.
    """
    # Keys in capitals have long parts of letters and digits mixed, which names have not.
    mixed = (re.search("[A-Z]", part) and re.search(r"\d", part) for part in name.split("_"))
    long = (len(part) >= 12 for part in name.split("_"))
    a_key = any(map(all, zip(mixed, long, strict=True))) and name not in os.environ
    if re.fullmatch(r"[A-Z_][A-Z0-9_]*|", name) and not a_key:
        return ""
    return (
        "not the name of an environment variable in capitals; give a name such as "
        "OPENAI_API_KEY, never the key itself"
    )


def wrong_base_url(address: str) -> str:
    """What is wrong with a server's address; empty if nothing is."""
    try:
        url = urlsplit(address)
        path = unquote(url.path)
        keyed = any(map(looks_like_key, re.split("[/;,=:@]", path))) or _holds_known_key(path)
        if url.username or url.password or url.query or url.fragment or keyed:
            return (
                "it holds a password, a key, a query or a fragment; "
                "leave it out and put the key into the environment"
            )
        right = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:  # of a port or a bracket
        right = False
    return "" if right else "no web address; give one like http://localhost:8000/v1"


def _holds_known_key(text: str) -> bool:
    named = (value for name, value in os.environ.items() if re.search("KEY|TOKEN|SECRET", name))
    return any(len(value) >= 8 and value in text for value in named)


def is_loopback(address: str) -> bool:
    """Whether a web address is this machine itself."""
    host = (urlsplit(address).hostname or "").rstrip(".")
    try:
        known = ipaddress.ip_address(host)
        return known.is_loopback or known.is_unspecified
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def proxy_variable(address: str) -> str:
    """The environment variable whose proxy an address is reached by; empty if by none."""
    url = urlsplit(address)
    if is_loopback(address) or proxy_bypass_environment(url.netloc):
        return ""
    used = (f"{url.scheme}_proxy", "all_proxy")
    return next((variable for name in used for variable in _set(name)), "")


def wrong_proxy() -> str:
    """What is wrong with the proxies that the environment names; empty if nothing is."""
    schemes = ["http", "https", ""]
    if importlib.util.find_spec("socksio"):
        schemes += ["socks5", "socks5h"]
    for variable in (variable for name in _PROXIES for variable in _set(name)):
        value = os.environ[variable]
        try:
            url = urlsplit(value if "://" in value else f"//{value}")
            right = url.scheme in schemes and url.hostname and url.port != 0
        except ValueError:  # of a port or a bracket
            right = False
        if not right:
            return (
                f"the proxy that the environment variable {variable} names is of no kind that can "
                f"be used here; unset {variable}, or give it the address of an HTTP proxy"
            )
    return ""


def _set(name: str) -> list[str]:
    return [variable for variable in (name, name.upper()) if os.environ.get(variable)]
