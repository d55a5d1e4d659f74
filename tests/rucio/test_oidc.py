"""Tokens that a real Rucio's OIDC client gets for RSEs, from a small issuer: who is asked for what, and who is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jwt
import pytest

from rucio_cs3.sandbox.issuer import Issuer
from rucio_cs3.sandbox.rucio_site import SANDBOX_POLICY, RucioSite

pytestmark = pytest.mark.rucio

INSIDE = Path(__file__).parent / "inside"


def test_inside_a_rucio_with_an_issuer(tmp_path: Path) -> None:
    seen = tmp_path / "tokens"
    with Issuer() as issuer:
        configuration = issuer.write_idpsecrets(tmp_path / "idpsecrets.json")
        with RucioSite(policy_package=SANDBOX_POLICY, extra_config=configuration) as rucio:
            kept = {key: value for key, value in os.environ.items() if not key.startswith(("RUCIO_", "PYTEST_"))}
            finished = subprocess.run(
                # Warnings of Rucio's own modules (utcnow, SQLAlchemy) are none of this package's errors.
                [
                    *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
                    *("-p", "tests.rucio.inside.rucio_queue", "-W", "default", str(INSIDE / "tokens_of_rucio.py")),
                ],
                env={**kept, **rucio.daemon_environment, "TOKENS_SEEN": str(seen)},
                cwd=INSIDE.parents[2],
                capture_output=True,
                text=True,
                timeout=840,
                check=False,
            )
        assert finished.returncode == 0, finished.stdout + finished.stderr
        tokens = [json.loads(line) for line in seen.read_text().splitlines()]
        assert len(tokens) == 4
        for token, audience in tokens:
            assert issuer.claims(token, audience)["iss"] == issuer.url
            with pytest.raises(jwt.InvalidAudienceError):
                issuer.claims(token, "somebody-else.test")
        # Each was asked for once, for one RSE, and none that lives longer than the transfer needs.
        assert len(issuer.requests) == len(set(issuer.requests)) == 4
        assert not any("offline_access" in scope for _, scope in issuer.requests)
        assert issuer.client_secret not in finished.stdout + finished.stderr
