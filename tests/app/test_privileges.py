"""Every route of the application by everybody: the same as in the table that was looked through."""

from pathlib import Path

import pytest

from tests.privileges import ROLES, Row, read, table

OUT = ("401", "303 sign-in", "404")
OPEN = ("/health", "/docs", "/openapi.json", "/request-viewer", "/portal/static/", "/portal/{rest",
        "/portal/api", "/portal/sign-", "/portal/look", "/saml/")  # fmt: skip


async def test_s_key_11_every_route_answers_as_the_table_says(tmp_path: Path) -> None:
    """A route that is new, or open to somebody else than before, is looked at before `python -m
    tests.privileges` writes it down."""
    found, expected = await table(tmp_path), read()
    by_route = {(row["method"], row["path"]): row for row in expected}
    for row in found:
        assert row == by_route.pop((row["method"], row["path"]), None), row
    assert not by_route, "these routes are gone"


def closed(prefix: str) -> list[Row]:
    rows = [row for row in read() if row["path"].startswith(prefix)]
    assert rows
    return rows


def test_s_key_11_the_table_itself_gives_nobody_too_much() -> None:
    for row in read():
        if row["path"] != "/" and not row["path"].startswith(OPEN):
            assert row["nobody"] in OUT, row
    for row in closed("/admin"):
        assert {row[role] for role in ("nobody", "key", "user", "operator")} == {"401"}, row
        assert "401" not in (row["admin"], row["admin_key"]), row
    for row in closed("/portal/operators"):
        assert (row["nobody"], row["key"], row["user"]) == ("303 sign-in", "303 sign-in", "404"), row
    for row in closed("/v1/"):
        assert {row[role] for role in ROLES if role != "key"} == {"401"}, row
        assert row["key"] != "401", row


@pytest.mark.parametrize("prefix", ["/portal/keys/{id}", "/portal/keys/{id}/revoke"])
def test_s_key_10_what_is_anothers_is_not_there_for_operators_either(prefix: str) -> None:
    (row,) = [row for row in read() if (row["method"], row["path"]) == ("GET", prefix)]
    assert {row[role] for role in ("user", "operator", "admin")} == {"404"}
