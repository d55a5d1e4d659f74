"""For how long a server asks to be left alone: the header ``Retry-After``. Pure."""

from __future__ import annotations

import datetime
import email.utils
from collections.abc import Mapping

#: Longest that a server is left alone because it said so, in seconds: an hour. One that is down for a day says it
#: again; one that says a year has a clock or a configuration that is wrong.
RETRY_AFTER_MAX_S = 3600.0


#: Longer ones are no date; HTTP's have 29 characters, or 33.
_DATE_MAX_CHARACTERS = 64


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """``Retry-After`` in seconds (RFC 9110, 10.2.3: a number of them, or a date), None where there is none to use.

    :returns: between 0 and :data:`RETRY_AFTER_MAX_S`.
    """
    text = headers.get("Retry-After", "").strip()
    # ASCII only: isdecimal() takes the digits of all scripts.
    if text.isascii() and text.isdecimal():
        # A number of any length: float() of thousands of digits is inf, which is above the limit, too.
        return min(float(text), RETRY_AFTER_MAX_S)
    until = http_date(text)
    if until is None:
        return None
    # By the server's own clock, where it tells it: ours may differ.
    now = http_date(headers.get("Date", "")) or datetime.datetime.now(datetime.timezone.utc)
    return min(max((until - now).total_seconds(), 0.0), RETRY_AFTER_MAX_S)


def http_date(text: str) -> datetime.datetime | None:
    """An HTTP date in any of its three forms; None for anything else."""
    if len(text) > _DATE_MAX_CHARACTERS:
        return None
    try:
        date = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError, IndexError):  # the last in early releases of Python 3.10 and 3.11
        return None
    # asctime's form names no zone; HTTP dates are in UTC.
    return date if date.tzinfo is not None else date.replace(tzinfo=datetime.timezone.utc)
