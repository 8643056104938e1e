import json
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from llmgateway.cli import check as checking
from llmgateway.domain.saml import KeyPair
from tests.cli.conftest import Ask, Run
from tests.lab.identity import TestIdp, new_pair
from tests.lab.processes import free_port


def test_an_embedded_gateway_is_fine_by_itself(ask: Ask, run: Run) -> None:
    rows = ask("check")["data"]
    assert {row["part"] for row in rows} == {"settings", "data directory", "sqlite", "memory"}
    assert all(row["fine"] for row in rows)
    assert "All is well." in run("check")[1]


def test_a_model_server_that_is_away_is_trouble(run: Run, config: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    config.write_text(f"models: [{{id: m, targets: [{{url: '{url}'}}]}}]\n")
    code, said = run("check")
    assert code == 1
    assert "1 of 5 parts is in trouble." in said
    assert url in said


def test_wrong_settings_are_told_all_at_once(run: Run, config: Path) -> None:
    config.write_text("currency: euros\nmodells: []\n")
    code, said = run("check")
    assert code == 1
    assert "currency" in said
    assert "modells" in said
    assert "2 of 2 parts are in trouble." in said
    code, said = run("check", "--json")
    rows = json.loads(said)["data"]
    assert (code, [(row["part"], row["fine"]) for row in rows]) == (1, [("settings", False)] * 2)


RULE = "{name: r, when: everybody, grants: {roles: [user], models: ['*']}}"
OURS, THEIRS = new_pair("sp"), new_pair("idp")


def with_saml(config: Path, pair: KeyPair = OURS, metadata: str = "idp.xml", rules: str = RULE) -> None:
    signed = ', metadata_certificate: "${file:sp.crt}"' if "://" in metadata else ""
    (config.parent / "sp.crt").write_text(pair.certificate)
    (config.parent / "sp.key").write_text(pair.key.reveal())
    config.write_text(
        'saml: {certificates: [{certificate: "${file:sp.crt}", key: "${file:sp.key}"}], '
        f"providers: [{{id: uni, name: University, metadata: '{metadata}'{signed}}}]}}\n"
        f"policy: {{rules: [{rules}]}}\n"
    )


def told(ask: Ask) -> dict[str, str]:
    return {row["part"]: row["is"] for row in ask("check")["data"]}


def test_saml_without_rules_lets_nobody_in(run: Run, ask: Ask, config: Path) -> None:
    (config.parent / "idp.xml").write_bytes(TestIdp(THEIRS).metadata())
    with_saml(config, rules="")
    code, said = run("check")
    assert code == 1
    assert "no rules: nobody is let in" in said
    with_saml(config)
    found = told(ask)
    assert found["policy"] == "1 rule"
    assert found["certificate"].startswith("the certificate ends on ")
    assert found["identity provider"].startswith("https://idp.example.org/idp; its certificate ends on ")


def test_keys_of_ours_that_do_not_fit_are_trouble(run: Run, config: Path) -> None:
    with_saml(config, KeyPair(OURS.certificate, THEIRS.key))
    code, said = run("check")
    assert code == 1
    assert "do not fit" in said


NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
UNUSABLE = {
    "not there": (None, "cannot read idp.xml: No such file or directory"),
    "no metadata": (b"<html>Sign in</html>", "holds no identity provider"),
    "nothing signs": (TestIdp().metadata(), "no certificate that signs"),
    "signs no more": (
        TestIdp(new_pair("old", until=NOW - DAY)).metadata(), f"its certificate ended on {NOW - DAY:%Y-%m-%d}"
    ),
    "over": (TestIdp(THEIRS).metadata(until=NOW - DAY), "not valid any more"),
}  # fmt: skip


@pytest.mark.parametrize(("document", "why"), UNUSABLE.values(), ids=UNUSABLE)
def test_s_saml_21_metadata_that_cannot_be_used_is_trouble(
    run: Run, config: Path, document: bytes | None, why: str
) -> None:
    with_saml(config)
    if document is not None:
        (config.parent / "idp.xml").write_bytes(document)
    code, said = run("check")
    assert code == 1
    assert why in " ".join(said.split())
    assert "uni: idp.xml" in said
    assert "1 of 7 parts is in trouble." in said


def test_what_ends_soon_is_told_and_no_trouble_yet(ask: Ask, config: Path) -> None:
    pair = new_pair("soon", until=NOW + 3 * DAY)
    (config.parent / "idp.xml").write_bytes(TestIdp(pair).metadata(until=NOW + DAY))
    with_saml(config, new_pair("sp", until=NOW + 20 * DAY))
    found = told(ask)
    assert found["certificate"] == f"the certificate ends soon, on {NOW + 20 * DAY:%Y-%m-%d}"
    assert f"its certificate ends soon, on {NOW + 3 * DAY:%Y-%m-%d}" in found["identity provider"]
    assert f"its metadata counts until {NOW + DAY:%Y-%m-%d %H:%M} UTC" in found["identity provider"]


def test_metadata_at_an_address_that_never_answers_has_a_deadline(
    run: Run, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        with_saml(config, metadata=f"https://127.0.0.1:{server.getsockname()[1]}/idp")
        code, said = run("check")
    assert code == 1
    assert "no answer within 0.3 s" in said
