"""Comparison with recorded cases of the original environments."""

from qvlib.tools.parity.hotpotqa import check_hotpotqa
from qvlib.tools.parity.rows import Row, format_rows
from qvlib.tools.parity.webshop import check_webshop

CHECKS = {"hotpotqa": check_hotpotqa, "webshop": check_webshop}

__all__ = ["CHECKS", "Row", "check_hotpotqa", "check_webshop", "format_rows"]
