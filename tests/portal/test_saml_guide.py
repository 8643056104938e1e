"""What docs/saml.md says of refusals, compared with what the log says."""

import logging
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest
import xmlsec

from tests.control.desk import Desk
from tests.lab.identity import EPPN, NAMES
from tests.lab.processes import ROOT
from tests.portal.house import browsing
from tests.portal.test_federation import STRANGER, Organisation, Worker, bring, leave

GUIDE = (ROOT / "docs/saml.md").read_text()
OTHER = "https://other.example.org/saml/acs"
AUDIENCE = "a:Assertion/a:Conditions/a:AudienceRestriction/a:Audience"
CONFIRMED = "a:Assertion/a:Subject/a:SubjectConfirmation/a:SubjectConfirmationData"
NAME_ID = "a:Assertion/a:Subject/a:NameID"
TRANSIENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"
RESPONDER = "urn:oasis:names:tc:SAML:2.0:status:Responder"

Change = Callable[[Any], None]


def put(path: str, text: str) -> Change:
    def change(root: Any) -> None:
        root.find(path, NAMES).text = text

    return change


def write(path: str, name: str, value: str) -> Change:
    def change(root: Any) -> None:
        (root if path == "." else root.find(path, NAMES)).set(name, value)

    return change


def share(root: Any) -> None:
    audience = root.find(AUDIENCE, NAMES)
    audience.addnext(audience.makeelement(audience.tag))
    audience.getnext().text = "urn:other"


WRONG: Mapping[str, Mapping[str, Any]] = {
    "only the assertion signed": {"signs_response": False},
    "only the response signed": {"signs_assertion": False},
    "signed by a stranger": {"pair": STRANGER},
    "sha-1": {"method": xmlsec.constants.TransformRsaSha1, "digest": xmlsec.constants.TransformSha1},
    "destination": {"before": write(".", "Destination", OTHER)},
    "recipient": {"before": write(CONFIRMED, "Recipient", OTHER)},
    "audience": {"before": put(AUDIENCE, "urn:other")},
    "two audiences": {"before": share},
    "issuer": {"before": put("a:Issuer", "urn:other")},
    "status": {"before": write("p:Status/p:StatusCode", "Value", RESPONDER)},
    "no subject": {"attributes": {"x": ["y"]}, "before": write(NAME_ID, "Format", TRANSIENT)},
    "two subjects": {"attributes": {EPPN: ["a@example.org", "b@example.org"]}},
    "another scope": {"attributes": {EPPN: ["a@example.com"]}},
    "late": {},
    "unasked": {},
    "unknown": {},
}  # fmt: skip


def explained() -> list[re.Pattern[str]]:
    """The words of the table's first column; … stands for any."""
    rows = re.findall(r"^\| (`.*?) \| ", GUIDE, re.MULTILINE)
    words = [word for row in rows for word in re.findall(r"`([^`]+)`", row)]
    return [re.compile(".*".join(map(re.escape, word.split("…")))) for word in words]


@pytest.mark.parametrize("what", WRONG)
async def test_every_reason_is_explained(desk: Desk, what: str, caplog: pytest.LogCaptureFixture) -> None:
    organisation = Organisation()
    desk.clock.at = organisation.idp.now
    worker = Worker(desk, organisation)
    await worker.idps.look()
    async with browsing(worker) as browser:
        request = {"unasked": None, "unknown": "_unknown"}.get(what, await leave(browser))
        if what == "late":
            organisation.idp.now -= timedelta(minutes=10)
        with caplog.at_level(logging.WARNING, "llmgateway.portal.federation"):
            answer = await bring(browser, organisation.idp.response(worker.sp, request, **WRONG[what]))
    assert answer.status_code == 401
    (reason,) = [one.__dict__["fields"]["reason"] for one in caplog.records if "was refused" in one.message]
    assert [word.pattern for word in explained() if word.search(reason)], reason
