"""Files that appear under their names only when they are closed, and when a failure keeps them from that."""

from __future__ import annotations

import io
import sys
from types import TracebackType

#: So many calls up it is looked whether a failed ``with`` block closes a file; pandas and fsspec need three.
_CALLS_UP = 12


class Withheld(io.RawIOBase):
    """A file that is stored, as a whole, when it is closed; never when a ``with`` block around it raises, or when
    nobody closes it.
    """

    def finish(self) -> None:
        """Store the file, whatever failure is being handled around us. Idempotent where that went well.

        :raises OSError: when it cannot be stored.
        """
        raise NotImplementedError

    def discard(self) -> None:
        """Give up what was written, and close. Idempotent."""
        raise NotImplementedError

    def close(self) -> None:
        """Store the file, unless somebody else's failed ``with`` block closes it. Errors as those of :meth:`finish`."""
        if self.closed:
            return
        if closed_by_a_failure():
            self.discard()
        else:
            self.finish()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Our own block says whether it failed; what failed around it is none of ours.
        if kind is not None:
            self.discard()
        elif not self.closed:
            self.finish()


def closed_by_a_failure() -> bool:
    """Whether we are within the ``__exit__`` of something else that closes us because its block has raised.

    pandas and fsspec close what they opened for somebody in such a way, and do not tell us why: half a table would
    become a file. An error that is only being handled, somewhere above, is none of this: the nearest ``__exit__`` does
    not have it.
    """
    error = sys.exc_info()[1]
    if error is None:
        return False
    frame = sys._getframe(1)
    for _ in range(_CALLS_UP):
        if frame.f_code.co_name == "__exit__":
            return _has(list(frame.f_locals.values()), error)
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return False


def _has(values: list[object], error: BaseException) -> bool:
    return any(value is error or (isinstance(value, tuple) and any(one is error for one in value)) for value in values)
