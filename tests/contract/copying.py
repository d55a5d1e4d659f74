"""Third-party copies between two places, as the client ring does them."""

from __future__ import annotations

from typing import Any

from rucio_cs3.cs3 import Reference
from rucio_cs3.cs3.webdav import tpc
from rucio_cs3.cs3.webdav.markers import Marker
from tests.contract.place import Place

#: Of a file that takes more than one block and one marker.
SIZE = 2 * 1024 * 1024 + 17


def authorization(place: Place) -> str:
    """A header's value for the place's cloud."""
    return f"Bearer {place.storage.access_token()}"


def url(place: Place, reference: Reference) -> str:
    """Of a file at the place's WebDAV front end."""
    return place.storage.endpoint.webdav.url(reference)


def arguments(source: Place, file: Reference, destination: Place, target: Reference) -> dict[str, str]:
    """What pull and push take."""
    return {
        "source_url": url(source, file),
        "destination_url": url(destination, target),
        "source_authorization": authorization(source),
        "destination_authorization": authorization(destination),
    }


def pull(source: Place, file: Reference, destination: Place, target: Reference, **changes: str) -> list[int]:
    """Have ``destination`` fetch a file from ``source``; returns the bytes of its markers."""
    markers: list[Marker] = []
    wanted: dict[str, Any] = {**arguments(source, file, destination, target), **changes}
    tpc.pull(destination.storage.http, on_marker=markers.append, **wanted)
    return [marker.transferred_bytes for marker in markers]


def push(source: Place, file: Reference, destination: Place, target: Reference, **changes: str) -> list[int]:
    """Have ``source`` send a file to ``destination``; returns the bytes of its markers."""
    markers: list[Marker] = []
    tpc.push(source.storage.http, on_marker=markers.append, **arguments(source, file, destination, target) | changes)
    return [marker.transferred_bytes for marker in markers]
