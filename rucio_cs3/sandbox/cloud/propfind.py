"""PROPFIND of the WebDAV front end: what is there, with the common properties.

Run against Reva v3.12.1 (ocdav). Which properties a request asks for is not looked at.
"""

from __future__ import annotations

import email.utils
import urllib.parse
import xml.etree.ElementTree as ET
from http import HTTPStatus

from rucio_cs3.sandbox.cloud.dav_resources import Resource, answer_error, look
from rucio_cs3.sandbox.cloud.http_server import Exchange
from rucio_cs3.sandbox.cloud.state import CloudState
from rucio_cs3.sandbox.cloud.tree import Entry

_DAV = "DAV:"
_OC = "http://owncloud.org/ns"
_SABRE = "http://sabredav.org/ns"


def answer(exchange: Exchange, resource: Resource) -> None:
    # Without a Depth header it is 1.
    depth = exchange.headers.get("Depth", "1").lower()
    if depth not in {"0", "1", "infinity"}:
        answer_error(exchange, HTTPStatus.BAD_REQUEST, "BadRequest", f"Invalid Depth header value: {depth}")
        return
    tree = resource.tree
    entry = look(exchange, tree, resource.relative)
    if entry is None:
        return
    if not entry.is_directory or depth == "0":
        entries = [entry]
    elif depth == "1":
        entries = [entry, *tree.children(resource.relative)]
    else:
        entries = list(tree.walk(resource.relative))
    found = ET.Element("d:multistatus", {"xmlns:d": _DAV, "xmlns:s": _SABRE, "xmlns:oc": _OC})
    for one in entries:
        _add_response(found, exchange.state, resource, one)
    headers = {"Content-Type": "application/xml; charset=utf-8", "DAV": "1, 3, extended-mkcol"}
    exchange.answer(HTTPStatus.MULTI_STATUS, headers, ET.tostring(found, "utf-8", xml_declaration=True))


def _add_response(found: ET.Element, state: CloudState, resource: Resource, entry: Entry) -> None:
    """One resource with its properties."""
    response = ET.SubElement(found, "d:response")
    path = f"{resource.base}/{entry.relative}".rstrip("/") + ("/" if entry.is_directory else "")
    ET.SubElement(response, "d:href").text = urllib.parse.quote(path, safe="/$!")
    status = ET.SubElement(response, "d:propstat")
    properties = ET.SubElement(status, "d:prop")
    ET.SubElement(status, "d:status").text = "HTTP/1.1 200 OK"
    ET.SubElement(properties, "oc:name").text = entry.name
    ET.SubElement(properties, "d:getetag").text = entry.etag
    modified = email.utils.formatdate(entry.mtime_ns / 1e9, usegmt=True)
    ET.SubElement(properties, "d:getlastmodified").text = modified
    kind = ET.SubElement(properties, "d:resourcetype")
    if entry.is_directory:
        ET.SubElement(kind, "d:collection")
        ET.SubElement(properties, "oc:size").text = str(entry.size)
        return
    ET.SubElement(properties, "d:getcontentlength").text = str(entry.size)
    ET.SubElement(properties, "d:getcontenttype").text = "application/octet-stream"
    if not state.v3 and not entry.without_checksums:
        # OpenCloud: one text with all three.
        sums = resource.tree.digests(entry)
        listed = " ".join(f"{name.upper()}:{digits}" for name, digits in sums.items())
        ET.SubElement(ET.SubElement(properties, "oc:checksums"), "oc:checksum").text = listed
