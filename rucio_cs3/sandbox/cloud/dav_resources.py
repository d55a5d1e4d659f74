"""What a WebDAV request is about, and the XML of an answer that is an error.

Read next: ``webdav.py``.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from http import HTTPStatus

from rucio_cs3.sandbox.cloud.http_server import Exchange
from rucio_cs3.sandbox.cloud.tree import Entry, Tree

_SABRE = "http://sabredav.org/ns"


@dataclass(frozen=True, kw_only=True)
class Resource:
    """What the path of a request stands for."""

    tree: Tree
    relative: str
    # The part of the decoded path that names the tree, without a slash at the end.
    base: str


def look(exchange: Exchange, tree: Tree, relative: str) -> Entry | None:
    """The resource; None after an answer was sent because there is none."""
    try:
        return tree.entry(relative)
    except FileNotFoundError:
        answer_error(exchange, HTTPStatus.NOT_FOUND, "NotFound", f"Resource {relative} not found")
    except OSError:
        # Below a file, or a name of 256 bytes.
        exchange.answer(HTTPStatus.INTERNAL_SERVER_ERROR)
    return None


def answer_error(exchange: Exchange, status: int, kind: str, message: str) -> None:
    error = ET.Element("d:error", {"xmlns:d": "DAV", "xmlns:s": _SABRE})
    ET.SubElement(error, "s:exception").text = f"Sabre\\DAV\\Exception\\{kind}"
    ET.SubElement(error, "s:message").text = message
    exchange.answer(
        status, {"Content-Type": "text/xml; charset=utf-8"}, ET.tostring(error, "utf-8", xml_declaration=True)
    )
