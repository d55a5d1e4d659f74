"""A filesystem of a cloud that is in no clouds file."""

from __future__ import annotations

from typing import Any

import fsspec

from tests.commands.clouds import CommandPlace


def filesystem_by_options(site: CommandPlace) -> tuple[Any, str]:
    """The filesystem, told everything by options, and the password in the file that they name."""
    user = next(iter(site.cloud.users.values()))
    secret = site.local / "password"
    secret.write_text(user.password)
    secret.chmod(0o600)
    filesystem = fsspec.filesystem(
        "cs3",
        gateway=site.cloud.gateway,
        gateway_tls="false",
        root=site.cloud.root,
        username=user.username,
        password_file=str(secret),
    )
    return filesystem, user.password
