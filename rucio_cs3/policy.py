"""Makes Rucio know this package: its URL schemes and its transfertool, in every process that needs them.

Two ways to use it: ``[policy] package = rucio_cs3.policy`` in ``rucio.cfg``, or one call of :func:`register`
(``rucio_cs3.register``) from a site's own policy package. Rucio has no entry points; the policy package is the one
thing that server, daemons and clients all import, which is why it is done here.

Nothing heavy is imported here: this module is imported in the middle of Rucio's own imports. What the transfertool
does is in :mod:`rucio_cs3.transfertool`; a scheme's meaning is in :mod:`rucio_cs3.cs3.reference`.
"""

from __future__ import annotations

import importlib
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from functools import wraps
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from itertools import takewhile
from types import ModuleType
from typing import Any

from rucio.common import constants

from rucio_cs3.cs3 import errors

#: Rucio versions whose hooks (the names below) were read and tried: 38 to 41. One more is let in, because
#: :func:`check` finds out by itself whether a hook has moved.
SUPPORTED_VERSION = [">=38", "<43"]

#: Schemes that may be each other's source and destination: those over TLS, and the plaintext ones.
SCHEME_FAMILIES: Sequence[Sequence[str]] = (("davs", "https", "cs3s"), ("http", "dav", "cs3"))

#: What Rucio 41 lacks in SUPPORTED_PROTOCOLS, which decides the PFNs of a client that names no scheme.
NEW_SCHEMES = ("cs3s", "cs3", "dav")

#: Name of the transfertool, as in ``[conveyor] transfertool``.
TRANSFERTOOL = "cs3"

_TRANSFER = "rucio.core.transfer"
_CLASSES = "TRANSFERTOOL_CLASSES_BY_NAME"
_LOG = logging.getLogger(__name__)

# Guards what register() itself changes. Never held during an import: another thread may hold that module's
# import lock and wait for this one.
_LOCK = threading.RLock()
_appended_schemes: set[str] = set()


def register() -> None:
    """Make Rucio know the schemes and the transfertool ``cs3``; idempotent and thread-safe.

    The transfertool is registered at once where ``rucio.core.transfer`` is loaded, and otherwise at the moment it
    is; in a client it never is.

    *Why not simply import it:* the policy package is imported by ``rucio.common.schema`` and
    ``rucio.core.permission``, both of which ``rucio.core.transfer`` needs. Importing it (or our transfertool, which
    needs ``rucio.core.request``) from here would be circular. So three cases are told apart:

    1. loaded: register now;
    2. not loaded: a finder on ``sys.meta_path`` wraps the loader of exactly that module, registers when its body
       has run, and removes itself;
    3. being loaded (it was imported first and led here): its body has yet to create the dictionary. Nothing runs
       after a body by itself, but everybody who wants the dictionary reads an attribute of the module, be it
       ``from … import`` or ``module.name``. So the module gets a class whose attribute access registers as soon
       as the dictionary is there, and gives the module its own class back.
    """
    with _LOCK:
        _add_schemes()
        if _TRANSFER not in sys.modules and not any(isinstance(f, _TransferFinder) for f in sys.meta_path):
            sys.meta_path.insert(0, _TransferFinder())
        module = sys.modules.get(_TRANSFER)
        if module is None:
            return
        if _CLASSES not in vars(module):
            if type(module) is ModuleType and _is_being_loaded(module):
                module.__class__ = _PartialTransferModule
            return
    _add_transfertool(vars(module))


def registered() -> dict[str, bool]:
    """What is in force in this process, by name; imports nothing that is not loaded yet.

    ``schemes`` and ``scheme_map`` are always there; ``transfertool`` is there only once ``rucio.core.transfer`` is
    loaded, so never in a client.
    """
    state = {
        "schemes": all(scheme in constants.SUPPORTED_PROTOCOLS for scheme in NEW_SCHEMES),
        "scheme_map": all(
            other in _scheme_map().get(scheme, ())
            for family in SCHEME_FAMILIES
            for scheme in family
            for other in family
        ),
    }
    module = sys.modules.get(_TRANSFER)
    if module is not None:
        tool = getattr(module, _CLASSES, {}).get(TRANSFERTOOL)
        state["transfertool"] = getattr(tool, "__module__", None) == "rucio_cs3.transfertool"
    return state


def check() -> None:
    """Refuse to go on half-registered; for the start of daemons. Loads Rucio's core unless this is a client.

    :raises ConfigurationError: naming what is missing.
    """
    from rucio.common.config import is_client

    if not is_client():
        importlib.import_module(_TRANSFER)
    missing = [name for name, there in registered().items() if not there]
    if missing:
        from rucio.version import version_string

        raise errors.ConfigurationError(
            f"rucio_cs3 is not fully registered in Rucio {version_string()}: {', '.join(missing)} missing; set "
            "[policy] package = rucio_cs3.policy, or call rucio_cs3.register() from the site's policy package"
        )


def _add_schemes() -> None:
    """In place, because Rucio's modules hold the list and the dictionary themselves."""
    for scheme in NEW_SCHEMES:
        if scheme not in constants.SUPPORTED_PROTOCOLS:
            constants.SUPPORTED_PROTOCOLS.append(scheme)
            _appended_schemes.add(scheme)
    # rsemanager.find_matching_scheme takes a pair of protocols when the schemes are equal or the source's is in
    # SCHEME_MAP[destination's]; core.transfer asks the same map for more sources. Each scheme of a family
    # therefore names all of it. TLS and plaintext stay apart: a rule must not lose encryption on the way.
    for family in SCHEME_FAMILIES:
        for scheme in family:
            known = _scheme_map().setdefault(scheme, [])
            known.extend(other for other in family if other not in known)


def _scheme_map() -> dict[str, list[str]]:
    # Rucio 41 renamed it; before, rucio.common.utils.get_transfer_schemas hands out this very dictionary.
    for name in ("SCHEME_MAP", "BASE_SCHEME_MAP"):
        found: dict[str, list[str]] | None = getattr(constants, name, None)
        if found is not None:
            return found
    return {}  # another Rucio; check() will say so


def _add_transfertool(namespace: MutableMapping[str, Any]) -> None:
    """Put the transfertool into a loaded ``rucio.core.transfer``; idempotent.

    :param namespace: the module's variables; not the module, whose attribute access may be what led here.
    """
    classes = namespace.get(_CLASSES)
    if classes is None:
        # A Rucio that moved it: its server shall run on without us; check() says so where it matters.
        _LOG.error("%s has no %s; the transfertool cs3 is not registered", _TRANSFER, _CLASSES)
        return
    from rucio_cs3.transfertool import CS3Transfertool

    with _LOCK:
        # Transfertool.supported_schemes copies SUPPORTED_PROTOCOLS when its module is imported, so FTS and Globus
        # would get our schemes or not by the order of imports. They never do: FTS uses tokens for davs alone
        # (rucio#6412), and a submitter told to send cs3s to FTS then says so at its start.
        for tool in classes.values():
            if tool is not CS3Transfertool:
                tool.supported_schemes = set(tool.supported_schemes) - _appended_schemes
                builder = tool.submission_builder_for_path.__func__
                if not hasattr(builder, "cs3_schemes"):
                    tool.submission_builder_for_path = classmethod(_refusing_our_schemes(builder))
        classes.setdefault(TRANSFERTOOL, CS3Transfertool)
        for name in ("cancel_transfers", "update_transfer_priority"):
            function = namespace.get(name)
            if function is not None and not hasattr(function, "cs3_transfers"):
                namespace[name] = _taking_ours_out(function, getattr(CS3Transfertool, f"on_{name}"))


def _taking_ours_out(function: Callable[..., Any], ours: Callable[[Any], None]) -> Callable[..., Any]:
    """Wrap one of the two functions of ``rucio.core.transfer`` that know no transfertool but FTS.

    ``cancel_transfers`` and ``update_transfer_priority`` make an ``FTS3Transfertool`` for whatever host a request
    names (Rucio 41.5.1 core/transfer.py:1363 and 1378). For our label that means a warning for each cancelled
    transfer, and that a rule with a running transfer refuses a new priority ("already in a final state",
    core/rule.py:1882).

    :param function: takes ``{external_host: transfers}`` first.
    :param ours: is called with the transfers of our own label.
    """
    from rucio_cs3.transfertool import EXTERNAL_HOST

    @wraps(function)
    def routed(transfers: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        others = dict(transfers)
        mine = others.pop(EXTERNAL_HOST, None)
        if mine:
            ours(mine)
        return function(others, *args, **kwargs) if others else None

    routed.cs3_transfers = True  # type: ignore[attr-defined]
    return routed


def _refusing_our_schemes(builder: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap another transfertool's ``submission_builder_for_path`` so that it never gets a hop with a scheme of ours.

    ``supported_schemes`` alone does not keep it from that: a submitter with several tools takes the schemes of all of
    them together (Rucio 41.5.1 daemons/conveyor/submitter.py:226), and FTS' builder looks at the RSEs' attributes only.
    """

    @wraps(builder)
    def refusing(cls: type, transfer_path: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        known = list(takewhile(lambda hop: _appended_schemes.isdisjoint(_schemes_of(hop)), transfer_path))
        return builder(cls, known, *args, **kwargs) if known else ([], None)

    refusing.cs3_schemes = True  # type: ignore[attr-defined]
    return refusing


def _schemes_of(hop: Any) -> set[str]:
    return {hop.dst.scheme, *(source.scheme for source in hop.sources)}


def _is_being_loaded(module: ModuleType) -> bool:
    # The flag by which importlib itself tells that a module's body is still running (3.10 to 3.14).
    return bool(getattr(module.__spec__, "_initializing", False))


class _TransferFinder(MetaPathFinder):
    """Case 2 of :func:`register`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _TRANSFER:
            return None
        for finder in self._others():
            spec: ModuleSpec | None = finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _TransferLoader(spec.loader, self)
                return spec
        return None

    def _others(self) -> Iterator[Any]:
        return (finder for finder in tuple(sys.meta_path) if finder is not self and hasattr(finder, "find_spec"))


class _TransferLoader(Loader):
    """Runs the module's body with its own loader, then registers; leaves no trace of itself."""

    def __init__(self, loader: Loader, finder: _TransferFinder) -> None:
        self._loader = loader
        self._finder = finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        with _LOCK:
            if self._finder in sys.meta_path:
                sys.meta_path.remove(self._finder)
        _add_transfertool(vars(module))

    def __getattr__(self, name: str) -> Any:
        # Whoever only looks at the spec (inspect, pkgutil) finds the real loader's abilities.
        return getattr(self._loader, name)


_registering = threading.local()


class _PartialTransferModule(ModuleType):
    """Case 3 of :func:`register`: ``rucio.core.transfer`` while, and shortly after, its body runs."""

    def __getattribute__(self, name: str) -> Any:
        # Dunder names are the import system's own look at the module, maybe with its locks held.
        if not name.startswith("__") and not getattr(_registering, "active", False):
            namespace = ModuleType.__getattribute__(self, "__dict__")
            if _CLASSES in namespace:
                _registering.active = True
                try:
                    # Two threads may both come here; the class goes back only when the tool is there, so that
                    # neither reads the dictionary without it.
                    _add_transfertool(namespace)
                    self.__class__ = ModuleType  # type: ignore[assignment]
                finally:
                    _registering.active = False
        return ModuleType.__getattribute__(self, name)


class _ExpectedFallback(logging.Filter):
    """Drops Rucio's warning that this module has no ``schema`` and ``permission`` of its own.

    It means to have none: a site's ``[policy] schema`` and ``permission`` stay in force. Without this every
    ``rucio`` command would start with two warnings.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return f"module {__name__}." not in record.getMessage()


logging.getLogger("policy").addFilter(_ExpectedFallback())
register()
