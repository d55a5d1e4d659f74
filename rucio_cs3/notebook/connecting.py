"""Which cloud a program means: by name, or by URL with what else it says about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from rucio_cs3 import clouds, places, rse_logins
from rucio_cs3.clouds import Cloud
from rucio_cs3.cs3 import errors
from rucio_cs3.settings import SETTINGS


def connect(where: str, options: Mapping[str, Any]) -> Cloud:
    """The cloud that a program means; its folder is the place that ``where`` names. Nothing is connected yet.

    :param where: a name or URL as :func:`rucio_cs3.places.find` takes them. With ``options`` it is the WebDAV URL of a
        folder.
    :param options: see :func:`checked`.
    :raises ConfigurationError: when there is no such cloud, or something is missing or wrong.
    """
    if not options:
        place = places.find(where)
        return replace(place.cloud, folder=place.reference)
    if "://" not in where:
        raise errors.ConfigurationError(
            f"{where} is a name, and what it stands for is in the clouds file or in Rucio; "
            f"{', '.join(sorted(options))} go with a URL"
        )
    host = urlsplit(where).hostname or where
    return clouds.from_settings(host, {"url": where, **checked(options)}, where=f"the options for {host}")


def checked(options: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of a cloud, under the names that the clouds file has for it.

    :param options: settings with or without ``cs3_`` before them, and who we are, by the names of
        :data:`rucio_cs3.rse_logins.KEYS`; secrets only by the name of a file.
    :raises ConfigurationError: for a secret, or a name that nobody knows. Its value is not repeated.
    """
    found: dict[str, Any] = {}
    for key, value in options.items():
        name = key if key in rse_logins.KEYS or key in SETTINGS else f"cs3_{key}"
        if rse_logins.holds_secret({name: "?"}):
            # It would be in the notebook's file, in its history, and in what dask sends to its workers.
            raise errors.ConfigurationError(
                f"{key} is a secret, and is not given to a program; give {key}_file, or write it into "
                f"{clouds.clouds_file()}"
            )
        if name not in rse_logins.KEYS and name not in SETTINGS:
            raise errors.ConfigurationError(f"there is no option {key}; there are {', '.join(sorted(known_options()))}")
        if value is not None:
            found[name] = str(value) if hasattr(value, "__fspath__") else value
    return found


def known_options() -> set[str]:
    """The names that :func:`checked` takes, those of settings without ``cs3_``."""
    logins = {key for key in rse_logins.KEYS if not rse_logins.holds_secret({key: "?"})}
    return logins | {name.removeprefix("cs3_") for name in SETTINGS}
