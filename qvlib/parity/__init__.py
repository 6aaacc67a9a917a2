"""Comparison with recorded cases of the original environments."""

from .hotpotqa import check_hotpotqa
from .rows import Row, format_rows
from .webshop import check_webshop

CHECKS = {"hotpotqa": check_hotpotqa, "webshop": check_webshop}

__all__ = ["CHECKS", "Row", "check_hotpotqa", "check_webshop", "format_rows"]
