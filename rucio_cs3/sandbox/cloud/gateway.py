"""What the gateways of both server lines do alike: logging in, saying who one is, building messages.

Read next: ``gateway_v3.py`` and ``gateway_spaces.py``, one for each line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cs3.gateway.v1beta1 import gateway_api_pb2
from cs3.identity.user.v1beta1 import resources_pb2 as user_pb2
from cs3.storage.provider.v1beta1 import provider_api_pb2, resources_pb2
from cs3.types.v1beta1 import types_pb2

from rucio_cs3.sandbox.cloud.logins import Logins
from rucio_cs3.sandbox.cloud.old_versions import OldVersion
from rucio_cs3.sandbox.cloud.rpc import OK, Call, Login, Method, Refusal, status
from rucio_cs3.sandbox.cloud.state import CloudState
from rucio_cs3.sandbox.cloud.tokens import InvalidToken
from rucio_cs3.sandbox.cloud.tree import Entry
from rucio_cs3.sandbox.reva import User


def opaque(values: Mapping[str, str]) -> Any:
    """An Opaque of plain entries."""
    return types_pb2.Opaque(
        map={key: types_pb2.OpaqueEntry(decoder="plain", value=text.encode()) for key, text in values.items()}
    )


def opaque_text(message: Any, key: str) -> str | None:
    """A plain entry of a request's opaque; None where it is absent."""
    entry = message.opaque.map.get(key)
    return None if entry is None else entry.value.decode("utf-8", "replace")


class Gateway:
    """Base of both gateways; a subclass adds the storage methods and how missing logins are refused."""

    def __init__(self, state: CloudState) -> None:
        self.state = state
        self._logins = Logins(state, self.refuse_password)

    def methods(self) -> dict[str, Method]:
        return {"Authenticate": self.authenticate, "WhoAmI": self.who_am_i, **self._logins.methods()}

    def check_login(self, call: Call) -> None:
        """Refuse a call that has no valid token, if its method needs one."""
        raise NotImplementedError

    def check_scope(self, scope: Mapping[str, Any], method: str, request: Any) -> bool:
        """Whether a valid token of this scope may make a call.

        :raises Refusal: where the answer is a CS3 status.
        """
        return True

    def refuse_password(self, username: str) -> Refusal:
        """The answer to a wrong user name or password."""
        raise NotImplementedError

    def authenticate(self, request: Any, _call: Call) -> Any:
        user, scope = self._logins.user(request.type, request.client_id, request.client_secret)
        return gateway_api_pb2.AuthenticateResponse(
            status=status(OK),
            token=self.state.mint.issue_access(self.state.user_claim(user), scope=scope),
            user=self.user_message(user),
        )

    def who_am_i(self, request: Any, _call: Call) -> Any:
        # Reva v3.12.1: the token of the request counts, and the call needs a valid one in its metadata besides.
        try:
            user = self.state.users[self.state.mint.username(request.token)]
        except (InvalidToken, KeyError):
            raise Refusal("UNAUTHENTICATED", "error dismantling token") from None
        return gateway_api_pb2.WhoAmIResponse(status=status(OK), user=self.user_message(user))

    def user_message(self, user: User) -> Any:
        claim = self.state.user_claim(user)
        return user_pb2.User(
            id=self.user_id_message(user),
            username=user.username,
            mail=claim["mail"],
            mail_verified=True,
            display_name=claim["display_name"],
        )

    def user_id_message(self, user: User) -> Any:
        return user_pb2.UserId(
            idp=self.state.http_url,
            opaque_id=self.state.id_of(user),
            type=user_pb2.UserType.Value("USER_TYPE_PRIMARY"),
        )

    @staticmethod
    def fill(info: Any, entry: Entry) -> None:
        """Set what a ResourceInfo says on both lines."""
        kind = "CONTAINER" if entry.is_directory else "FILE"
        info.type = resources_pb2.ResourceType.Value(f"RESOURCE_TYPE_{kind}")
        info.etag = entry.etag
        info.mime_type = "httpd/unix-directory" if entry.is_directory else "application/octet-stream"
        # Reva v3.12.1 local puts a time before 1970 into the unsigned number as it is.
        info.mtime.seconds = entry.mtime_ns // 1_000_000_000 % 2**64
        info.size = entry.size
        info.permission_set.CopyFrom(
            resources_pb2.ResourcePermissions(
                create_container=True,
                delete=True,
                get_path=True,
                get_quota=True,
                initiate_file_download=True,
                initiate_file_upload=True,
                list_container=True,
                list_file_versions=True,
                list_recycle=True,
                move=True,
                purge_recycle=True,
                restore_recycle_item=True,
                stat=True,
            )
        )

    @staticmethod
    def versions(found: Iterable[OldVersion]) -> Any:
        """The answer of both lines to ListFileVersions."""
        versions = [
            resources_pb2.FileVersion(key=one.key, size=one.size, mtime=one.mtime, etag=one.etag) for one in found
        ]
        return provider_api_pb2.ListFileVersionsResponse(status=status(OK), versions=versions)

    def ticket(self, target: str) -> str:
        return self.state.mint.issue_transfer(target)

    @staticmethod
    def anonymous(call: Call) -> bool:
        """Whether a method needs no token: logging in."""
        return call.login is not Login.VALID and call.method == "Authenticate"

    @staticmethod
    def plain(response_name: str) -> Any:
        """A storage provider response that says OK and nothing else."""
        return getattr(provider_api_pb2, response_name)(status=status(OK))
