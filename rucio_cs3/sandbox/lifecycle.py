"""What all servers of the sandbox have in common: they start, stop, and are context managers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import TypeVar

S = TypeVar("S", bound="Startable")


class Startable(ABC):
    """Starts on entry, stops on exit; what fails to start is stopped, too."""

    @abstractmethod
    def start(self) -> None:
        """Start, and return when ready."""

    @abstractmethod
    def stop(self) -> None:
        """Stop, and remove what was temporary. Idempotent."""

    def __enter__(self: S) -> S:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
