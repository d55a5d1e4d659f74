"""A hook of MkDocs: docstrings are reST, and their roles would stand in the pages as they are written.

``:class:`~a.b.C``` is shown as ``C``, and double back quotes as they are in Markdown.
"""

from __future__ import annotations

import re
from typing import Any

_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):<code>(~?)([^<]*)</code>")


def on_page_content(html: str, **_: Any) -> str:
    """Called by MkDocs for each page, once it is HTML."""
    return _ROLE.sub(lambda role: f"<code>{role[2].rpartition('.')[2] if role[1] else role[2]}</code>", html)
