"""Text that only who knows an account's own secret can read: AES-256-GCM, under a key that scrypt makes of the secret.

Knows neither files nor uploads. scrypt and not a plain hash, because the secret may be a password that a person chose:
whoever gets hold of sealed text could try passwords on it, and each try is to be expensive.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
import threading
from typing import TYPE_CHECKING

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.login.providers import CredentialProvider

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

#: scrypt's cost: 16 MiB, and some 80 ms of one core.
_COST, _BLOCKS, _LANES = 2**14, 8, 2
_MEMORY_BYTES = 64 * 1024 * 1024

_SALT_BYTES = 16
_NONCE_BYTES = 12
_KEY_BYTES = 32


class Unreadable(Exception):
    """The text was sealed with another secret, or is damaged."""


class NoSecret(Exception):
    """The account has no secret that lasts: ``CredentialProvider.lasting_secret`` in ``login/providers.py``."""


class Seal:
    """Seals texts for one identity; safe for many threads.

    The secret is asked for when it is needed and not kept; one key, for texts of this process, is.
    """

    # Not for speed: ``vars`` would show the key.
    __slots__ = ("_lock", "_own", "_provider")

    def __init__(self, provider: CredentialProvider) -> None:
        self._provider = provider
        self._lock = threading.Lock()
        self._own: tuple[bytes, bytes, bytes] | None = None

    def close(self, text: str, label: bytes) -> str:
        """Seal a text.

        :param label: what it belongs to, not secret; :meth:`open` needs the same.
        :raises NoSecret: when the account has none that lasts.
        :raises ConfigurationError: when it cannot be had, or this machine makes no key of it.
        """
        secret = self._secret()
        fingerprint = hashlib.sha256(secret).digest()
        with self._lock:
            # One key for all texts of the process: nonces of 96 random bits last for 2**32 of them.
            if self._own is None or self._own[0] != fingerprint:
                salt = secrets.token_bytes(_SALT_BYTES)
                self._own = (fingerprint, salt, _key(secret, salt))
            _, salt, key = self._own
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return base64.b64encode(salt + nonce + _cipher(key).encrypt(nonce, text.encode(), label)).decode()

    def open(self, sealed: str, label: bytes) -> str:
        """What was sealed.

        :raises Unreadable: when it was with another secret or label, or is damaged.
        :raises NoSecret: when the account has none that lasts.
        :raises ConfigurationError: when it cannot be had, or this machine makes no key of it.
        """
        from cryptography.exceptions import InvalidTag

        try:
            data = base64.b64decode(sealed, validate=True)
        except (binascii.Error, ValueError):
            raise Unreadable from None
        salt, nonce = data[:_SALT_BYTES], data[_SALT_BYTES : _SALT_BYTES + _NONCE_BYTES]
        if len(nonce) < _NONCE_BYTES:
            raise Unreadable
        try:
            text: bytes = _cipher(_key(self._secret(), salt)).decrypt(nonce, data[_SALT_BYTES + _NONCE_BYTES :], label)
            return text.decode()
        except (InvalidTag, UnicodeDecodeError):
            raise Unreadable from None

    def _secret(self) -> bytes:
        # Never a login: that may ask an issuer, or use up a token that rotates.
        secret = self._provider.lasting_secret()
        if not secret:
            raise NoSecret
        return secret.encode()


def _key(secret: bytes, salt: bytes) -> bytes:
    try:
        return hashlib.scrypt(secret, salt=salt, n=_COST, r=_BLOCKS, p=_LANES, maxmem=_MEMORY_BYTES, dklen=_KEY_BYTES)
    except (AttributeError, ValueError) as error:
        # OpenSSL in FIPS mode refuses it, and a Python that was built with another library may have none.
        raise errors.ConfigurationError(f"this Python makes no keys by scrypt: {error}") from error


def _cipher(key: bytes) -> AESGCM:
    # Imported when needed: it costs some 20 ms, and most uploads keep nothing.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)
