"""fsspec's own tests of what every filesystem must do.

Those of copies are many and ask one thing: which path goes where. So they run against one kind of cloud; all of them
pass on the others, too.
"""

from __future__ import annotations

from typing import Any

import fsspec
import pytest
from fsspec.tests import abstract

from tests.commands.clouds import CommandPlace


class _Fixtures(abstract.AbstractFixtures):  # type: ignore[misc]  # fsspec ships no types
    @pytest.fixture
    def fs_path(self) -> str:
        return "TEST"


class _Spaces(_Fixtures):
    @pytest.fixture
    def fs(self, spaces_site: CommandPlace) -> Any:
        return fsspec.filesystem("cs3")


class _AllClouds(_Fixtures):
    @pytest.fixture
    def fs(self, site: CommandPlace) -> Any:
        return fsspec.filesystem("cs3")


class TestCopy(abstract.AbstractCopyTests, _Spaces):  # type: ignore[misc]
    pass


class TestGet(abstract.AbstractGetTests, _Spaces):  # type: ignore[misc]
    pass


class TestPut(abstract.AbstractPutTests, _Spaces):  # type: ignore[misc]
    pass


class TestOpen(abstract.AbstractOpenTests, _AllClouds):  # type: ignore[misc]
    pass


class TestPipe(abstract.AbstractPipeTests, _AllClouds):  # type: ignore[misc]
    pass
