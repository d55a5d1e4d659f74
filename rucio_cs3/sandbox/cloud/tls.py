"""Certificates of embedded clouds."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from rucio_cs3.sandbox.authority import common_authority
from rucio_cs3.sandbox.ports import LOOPBACK

if TYPE_CHECKING:
    import trustme


@dataclass(frozen=True, kw_only=True)
class Tls:
    """What one cloud serves TLS with, and whom it trusts.

    :param server: context of the HTTP server.
    :param peers: context for requests to other sites.
    :param ca_bundle: PEM file of the authority.
    """

    server: ssl.SSLContext
    peers: ssl.SSLContext
    grpc_credentials: grpc.ServerCredentials
    ca_bundle: Path


def prepare(directory: Path, authority: trustme.CA | None, trusted: Sequence[Path]) -> Tls:
    """Issue a certificate for 127.0.0.1 and localhost, and write ``ca.pem``.

    :param trusted: PEM files of more authorities that requests to other sites may meet.
    """
    authority = authority or common_authority()
    certificate = authority.issue_cert(LOOPBACK, "localhost")
    ca_bundle = directory / "ca.pem"
    ca_bundle.write_bytes(authority.cert_pem.bytes())
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(server)
    key = certificate.private_key_pem.bytes()
    chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
    return Tls(
        server=server,
        peers=peer_context([ca_bundle, *trusted]),
        grpc_credentials=grpc.ssl_server_credentials([(key, chain)]),
        ca_bundle=ca_bundle,
    )


def peer_context(trusted: Sequence[Path]) -> ssl.SSLContext:
    """Context for requests to sites whose authority is in one of these PEM files, or known to the system."""
    context = ssl.create_default_context()
    for path in trusted:
        context.load_verify_locations(cafile=path)
    return context
