"""Values that hold a secret. Pure.

A base class for frozen dataclasses; their secret fields are ``repr=False``, and they have ``slots``, so that not even
``vars`` shows them.
"""

from __future__ import annotations

from typing import Any, NoReturn, SupportsIndex, TypeVar

T = TypeVar("T", bound="Confidential")


class Confidential:
    """What is never pickled: a pickle is written somewhere, or sent. A copy is the value itself, for it is frozen."""

    __slots__ = ()

    def __reduce_ex__(self, _: SupportsIndex) -> NoReturn:
        """
        :raises TypeError: always.
        """
        raise TypeError(f"{type(self).__name__} holds a secret, and is not pickled")

    def __copy__(self: T) -> T:
        return self

    def __deepcopy__(self: T, _: dict[int, Any]) -> T:
        return self
