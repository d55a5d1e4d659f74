"""What a real Reva site is told: ``revad.toml``, its users and its groups, from one description.

Read next: ``reva.py``, which writes it and starts ``revad``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from rucio_cs3.sandbox.ports import LOOPBACK

#: The mount the storage provider registers; every absolute CS3 path of the site begins with it.
MOUNT = "/localfs"

#: Ways to log in that have a provider of their own beside the site's gateway, and Reva's name of its manager.
LOGIN_MANAGERS: Mapping[str, str] = {
    "machine": "machine",
    "bearer": "oidc",
    "appauth": "appauth",
    "publicshares": "publicshares",
}


@dataclass(frozen=True, kw_only=True)
class User:
    """Somebody who can log in to the site with ``basic`` authentication."""

    username: str
    password: str = field(repr=False)
    display_name: str = ""


@dataclass(frozen=True, kw_only=True)
class RevaSettings:
    """One Reva site in one process.

    :param gateway: ``host:port`` of its gRPC services.
    :param http_url: base of everything HTTP, without a slash at the end; ``https`` takes ``server.pem`` and
        ``server.key`` from the directory.
    :param login_ports: of the providers of :data:`LOGIN_MANAGERS`: one gRPC server has one provider at most.
    :param issuer: whose OIDC tokens let somebody in; none where empty.
    :param access_token_lifetime_s: validity of access tokens, in whole seconds.
    :param transfer_token_lifetime_s: the same for transfer tokens.
    :param data_gateway_url: where tickets send clients.
    :param listen: address to listen at for clients; empty for that of ``gateway`` and ``http_url``. In a container it
        is ``0.0.0.0``; what the site asks of itself then never leaves the container.
    """

    name: str
    directory: Path
    gateway: str
    http_url: str
    login_ports: Sequence[int]
    users: Sequence[User]
    http_tpc: bool
    jwt_secret: str = field(repr=False)
    transfer_secret: str = field(repr=False)
    machine_key: str = field(repr=False)
    issuer: str
    access_token_lifetime_s: int
    transfer_token_lifetime_s: int
    data_gateway_url: str
    listen: str = ""

    @property
    def inner_gateway(self) -> str:
        """``host:port`` at which the site's own services find each other."""
        return f"{LOOPBACK}:{self.gateway.rpartition(':')[2]}" if self.listen else self.gateway

    @property
    def inner_http_url(self) -> str:
        """As :attr:`http_url`, for the site's own requests to itself."""
        if not self.listen:
            return self.http_url
        parts = urlsplit(self.http_url)
        return f"{parts.scheme}://{LOOPBACK}:{parts.port}"

    def listening_at(self, address: str) -> str:
        """``host:port`` to bind, of one that clients use."""
        return f"{self.listen}:{address.rpartition(':')[2]}" if self.listen else address


def users(site: RevaSettings) -> list[dict[str, object]]:
    return [
        {
            "id": {"idp": site.http_url, "opaque_id": user.username, "type": 1},
            "username": user.username,
            "secret": user.password,
            "display_name": user.display_name or user.username,
            "mail": f"{user.username}@{site.name}.test",
            "mail_verified": True,
            "groups": ["scientists"],
            "uid_number": number,
            "gid_number": 1000,
        }
        for number, user in enumerate(site.users, start=1000)
    ]


def groups(site: RevaSettings) -> list[dict[str, object]]:
    return [
        {
            "id": {"idp": site.http_url, "opaque_id": "scientists"},
            "group_name": "scientists",
            "display_name": "Scientists",
            "mail": f"scientists@{site.name}.test",
            "gid_number": 1000,
        }
    ]


def revad_toml(site: RevaSettings) -> str:
    grpc_address = site.inner_gateway
    storage = str(site.directory / "storage")
    users_json = str(site.directory / "users.json")
    http: dict[str, object] = {"address": site.listening_at(site.http_url.partition("://")[2])}
    if site.http_url.startswith("https:"):
        http["certfile"] = str(site.directory / "server.pem")
        http["keyfile"] = str(site.directory / "server.key")
    logins = dict(zip(LOGIN_MANAGERS, (f"{LOOPBACK}:{port}" for port in site.login_ports), strict=True))
    if not site.issuer:
        # Reva v3.12.1 asks the issuer at the first login only, and would then complain of none.
        del logins["bearer"]
    # Every service in one process finds the others through the gateway's own address.
    registries = (
        "applicationauthsvc",
        "authregistrysvc",
        "storageregistrysvc",
        "appregistrysvc",
        "preferencessvc",
        "userprovidersvc",
        "groupprovidersvc",
        "usershareprovidersvc",
        "publicshareprovidersvc",
        "spacessvc",
    )
    tables: dict[str, dict[str, object]] = {
        "log": {"level": "warn", "mode": "json"},
        "shared": {
            "gatewaysvc": grpc_address,
            "jwt_secret": site.jwt_secret,
            "skip_user_groups_in_token": True,
            "db_engine": "sqlite",
            "db_name": str(site.directory / "reva.db"),
        },
        "core": {"max_cpus": "2"},
        "grpc": {"address": site.listening_at(site.gateway)},
        "grpc.services.gateway": {
            "commit_share_to_storage_grant": False,
            "commit_share_to_storage_ref": False,
            "disable_home_creation_on_login": True,
            "transfer_shared_secret": site.transfer_secret,
            "transfer_expires": site.transfer_token_lifetime_s,
            "datagateway": site.data_gateway_url,
            # A cached etag would hide a change that a test has just made.
            "etag_cache_ttl": 0,
            **dict.fromkeys(registries, grpc_address),
        },
        "grpc.services.gateway.token_managers.jwt": {"expires": site.access_token_lifetime_s},
        "grpc.services.preferences": {"driver": "memory"},
        "grpc.services.storageregistry": {"driver": "static"},
        "grpc.services.storageregistry.drivers.static": {"home_provider": "/home"},
        f"grpc.services.storageregistry.drivers.static.rules.{_toml(MOUNT)}": {"address": grpc_address},
        "grpc.services.storageregistry.drivers.static.rules.localfs": {"address": grpc_address},
        "grpc.services.storageprovider": {
            "driver": "local",
            "mount_path": MOUNT,
            "mount_id": "localfs",
            "space_depth": 1,
            "data_server_url": f"{site.inner_http_url}/data",
            "expose_data_server": False,
        },
        "grpc.services.storageprovider.available_checksums": {"adler32": 100, "md5": 50},
        "grpc.services.storageprovider.drivers.local": {"root": storage, "share_folder": "/MyShares"},
        "grpc.services.authregistry": {"driver": "static"},
        "grpc.services.authregistry.drivers.static.rules": {"basic": grpc_address, **logins},
        "grpc.services.applicationauth": {"driver": "json"},
        # The least work that bcrypt takes: passwords here protect nothing.
        "grpc.services.applicationauth.drivers.json": {
            "file": str(site.directory / "app-passwords.json"),
            "password_hash_cost": 4,
        },
        "grpc.services.publicshareprovider": {"driver": "json"},
        "grpc.services.publicshareprovider.drivers.json": {"file": str(site.directory / "links.json")},
        "grpc.services.userprovider": {"driver": "json"},
        "grpc.services.userprovider.drivers.json": {"users": users_json},
        "grpc.services.groupprovider": {"driver": "json"},
        "grpc.services.groupprovider.drivers.json": {"groups": str(site.directory / "groups.json")},
        "http": http,
        "http.middlewares.auth": {
            "credential_chain": ["basic", "bearer"],
            "token_strategy_chain": ["bearer", "header"],
        },
        "http.services.datagateway": {"transfer_shared_secret": site.transfer_secret},
        "http.services.dataprovider": {"driver": "local"},
        "http.services.dataprovider.drivers.local": {"root": storage},
        "http.services.ocdav": {
            "prefix": "",
            "enable_http_tpc": site.http_tpc,
            "files_namespace": MOUNT,
            "webdav_namespace": MOUNT,
        },
    }
    managers: dict[str, dict[str, object]] = {
        "machine": {"api_key": site.machine_key},
        "oidc": {"issuer": site.issuer},
    }
    # Reva starts one gRPC server for each address that it reads: these must be the same text as above.
    providers = [_provider(site.listening_at(site.gateway), "json", {"users": users_json})]
    for kind, address in logins.items():
        manager = LOGIN_MANAGERS[kind]
        providers.append(_provider(address, manager, managers.get(manager, {})))
    return "\n".join([_render_toml(tables), *providers])


def _provider(address: str, manager: str, settings: Mapping[str, object]) -> str:
    """One of several login providers; what follows in such a list belongs to its last element."""
    table = "grpc.services.authprovider"
    own = _render_toml({table: {"address": address, "auth_manager": manager}})
    return own.replace(f"[{table}]", f"[[{table}]]") + _render_toml({f"{table}.auth_managers.{manager}": settings})


def _render_toml(tables: Mapping[str, Mapping[str, object]]) -> str:
    lines: list[str] = []
    for table, entries in tables.items():
        lines.append(f"[{table}]")
        lines.extend(f"{key} = {_toml(value)}" for key, value in entries.items())
        lines.append("")
    return "\n".join(lines)


def _toml(value: object) -> str:
    # Strings, booleans, integers and lists of strings are written alike in JSON and TOML.
    return json.dumps(value)
