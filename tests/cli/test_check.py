from pathlib import Path

from tests.cli.conftest import Ask, Run
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
    assert code == 2
    assert "currency" in said
    assert "modells" in said


def test_saml_without_rules_lets_nobody_in(run: Run, ask: Ask, config: Path) -> None:
    pair = "{certificate: '-----BEGIN CERTIFICATE----- x -----END CERTIFICATE-----', " \
           "key: '-----BEGIN PRIVATE KEY----- x -----END PRIVATE KEY-----'}"  # fmt: skip
    saml = f"saml: {{certificates: [{pair}], providers: [{{id: u, metadata: idp.xml}}]}}\n"
    config.write_text(saml)
    code, said = run("check")
    assert code == 1
    assert "no rules: nobody is let in" in said
    rule = "{name: r, when: everybody, grants: {roles: [user], models: ['*']}}"
    config.write_text(f"{saml}policy: {{rules: [{rule}]}}\n")
    assert {row["part"]: row["is"] for row in ask("check")["data"]}["policy"] == "1 rule"
