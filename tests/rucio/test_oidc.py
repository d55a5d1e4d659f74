"""Tokens that a real Rucio's OIDC client gets for RSEs, from a small issuer: who is asked for what, and who is not."""

from __future__ import annotations

import json
from pathlib import Path

import jwt
import pytest

from rucio_cs3.sandbox.issuer import Issuer
from rucio_cs3.sandbox.rucio_site import SANDBOX_POLICY, RucioSite
from tests.rucio.inside_runs import INSIDE, run_inside

pytestmark = pytest.mark.rucio


def test_inside_a_rucio_with_an_issuer(tmp_path: Path) -> None:
    seen = tmp_path / "tokens"
    with Issuer() as issuer:
        configuration = issuer.write_idpsecrets(tmp_path / "idpsecrets.json")
        with RucioSite(policy_package=SANDBOX_POLICY, extra_config=configuration) as rucio:
            said = run_inside(rucio, INSIDE / "tokens_of_rucio.py", TOKENS_SEEN=str(seen))
        tokens = [json.loads(line) for line in seen.read_text().splitlines()]
        assert len(tokens) == 4
        for token, audience in tokens:
            assert issuer.claims(token, audience)["iss"] == issuer.url
            with pytest.raises(jwt.InvalidAudienceError):
                issuer.claims(token, "somebody-else.test")
        # Each was asked for once, for one RSE, and none that lives longer than the transfer needs.
        assert len(issuer.requests) == len(set(issuer.requests)) == 4
        assert not any("offline_access" in scope for _, scope in issuer.requests)
        assert issuer.client_secret not in said
