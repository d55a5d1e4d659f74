"""Which folders were there a moment ago, so that nobody looks at them for each file. Pure; asks nobody.

A memory, not a truth: somebody else may remove a folder at any time. Whoever relies on it must be able to tell that it
was wrong, and then say so here (:meth:`FolderMemory.forget`).
"""

from __future__ import annotations

import threading

from rucio_cs3.cs3.reference import Reference, Root

#: Folders that are remembered, at some hundred bytes each. Rucio spreads the files of a scope over 65,536 folders
#: (``aa/bb``), but what is uploaded within some minutes comes from few datasets.
_MOST_FOLDERS = 8192


class FolderMemory:
    """Of one storage; safe for many threads.

    :param most: folders that are remembered; with one more it begins again, as one that is new to a storage does.
    """

    def __init__(self, most: int = _MOST_FOLDERS) -> None:
        self._most = most
        self._lock = threading.Lock()
        # With each folder all those above it, so that what is not in here has nothing below it in here.
        self._folders: set[tuple[Root, str]] = set()

    def __len__(self) -> int:
        return len(self._folders)

    def knows(self, folder: Reference) -> bool:
        """Whether it was there when it was last heard of. The root always is: nobody could make it."""
        return not folder.path or (folder.root, folder.path) in self._folders

    def learn(self, folder: Reference) -> None:
        """It is there, and so are those above it."""
        if self.knows(folder):
            return
        with self._lock:
            if len(self._folders) + folder.path.count("/") >= self._most:
                self._folders.clear()
            while folder.path:
                self._folders.add((folder.root, folder.path))
                folder = folder.parent

    def forget(self, folder: Reference) -> None:
        """It is gone, or may be; then so is all below it."""
        if (folder.root, folder.path) not in self._folders:
            return
        below = f"{folder.path}/"
        with self._lock:
            self._folders = {
                (root, path)
                for root, path in self._folders
                if root != folder.root or (path != folder.path and not path.startswith(below))
            }
