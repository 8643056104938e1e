"""Real identity providers: SimpleSAMLphp under PHP's own server, and saml-idp under Node.

They listen on 127.0.0.1 and are called localhost, which is another site than the gateway's 127.0.0.1: as in
production, their forms bring none of the gateway's cookies.
"""

import shutil
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from playwright.async_api import Page
from typing_extensions import override

from llmgateway.domain.saml import KeyPair
from tests.lab.identity import body, new_pair
from tests.lab.listening import Listening
from tests.lab.node import NODE, installed
from tests.lab.processes import ROOT, absent

LOCK = ROOT / "tests/e2e/idp"
SIMPLESAML = Path("/usr/share/simplesamlphp")
INSTALL = "apt-get install -y --no-install-recommends simplesamlphp php-cli"
SUBJECT, GROUPS, NAME, MAIL = "eduPersonPrincipalName", "groups", "displayName", "mail"
PASSWORD = "alice's word"
SECONDS = 15


class Idp(Listening):
    """One provider for one gateway."""

    def __init__(self, sp_url: str, sp: KeyPair) -> None:
        self.sp_url, self.sp = sp_url, sp
        super().__init__()

    @override
    def _prepare(self) -> None:
        self.url = f"http://localhost:{self.port}"
        self.pair = new_pair("real-idp")
        (self.directory / "idp.crt").write_text(self.pair.certificate + "\n")
        (self.directory / "idp.key").write_text(self.pair.key.reveal() + "\n")

    def metadata(self) -> bytes:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.port}{self._metadata_path}", timeout=SECONDS
        ) as it:
            document: bytes = it.read()
            return document

    async def fill_in(self, page: Page, who: str, groups: str) -> None:
        """What somebody does on its page; the next page is the gateway's or a form that leads there."""
        raise NotImplementedError

    question = ""
    """What asks people who they are."""

    _metadata_path = ""


class SamlIdp(Idp):
    """Whoever says who they are is believed."""

    question = "#userName"
    _metadata_path = "/metadata"

    @override
    def _executable(self) -> Path:
        self.modules = installed(LOCK) / "node_modules"
        return NODE

    @override
    def _arguments(self) -> Sequence[str | Path]:
        (self.directory / "people.js").write_text(PEOPLE)
        return [
            self.modules / "saml-idp/bin/run.js", "--host", "127.0.0.1", "--port", str(self.port),
            "--cert", self.directory / "idp.crt", "--key", self.directory / "idp.key",
            "--issuer", "urn:example:saml-idp", "--acsUrl", f"{self.sp_url}/saml/acs",
            "--sloUrl", f"{self.sp_url}/saml/sls", "--audience", f"{self.sp_url}/saml/metadata",
            "--configFile", self.directory / "people.js",
        ]  # fmt: skip

    @override
    async def fill_in(self, page: Page, who: str, groups: str) -> None:
        await page.fill("#userName", who)
        await page.fill(f"[name={SUBJECT}]", who)
        await page.fill(f"[name={GROUPS}]", groups)
        await page.click("form.form-profile [type=submit]:visible")


PEOPLE = f"""
const one = id => ({{id, optional: false, displayName: id, description: id, multiValue: false}});
module.exports = {{
  user: {{userName: "nobody", nameIdFormat: "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent",
         {SUBJECT}: "nobody@example.org", {NAME}: "Alice Example", {MAIL}: "alice@example.org",
         {GROUPS}: "none"}},
  metadata: [one("{SUBJECT}"), one("{NAME}"), one("{MAIL}"), one("{GROUPS}")],
}};
"""


class SimpleSaml(Idp):
    """With passwords, signed requests required, and single logout in both directions."""

    question = "#password"
    _metadata_path = "/simplesaml/saml2/idp/metadata.php"

    @override
    def _executable(self) -> Path:
        php = shutil.which("php")
        if php is None or not SIMPLESAML.exists():
            absent("SimpleSAMLphp", INSTALL)
        return Path(php)

    @override
    def _arguments(self) -> Sequence[str | Path]:
        for name in ("config", "metadata", "logs", "data", "tmp", "sessions", "docroot"):
            (self.directory / name).mkdir()
        (self.directory / "docroot/simplesaml").symlink_to(SIMPLESAML / "www")
        for name, text in self._files().items():
            (self.directory / name).write_text(text)
        return ["-d", "display_errors=0", "-S", f"127.0.0.1:{self.port}",
                "-t", self.directory / "docroot"]  # fmt: skip

    @override
    def _environment(self) -> Mapping[str, str]:
        return {"SIMPLESAMLPHP_CONFIG_DIR": str(self.directory / "config"), "PHP_CLI_SERVER_WORKERS": "2"}

    @override
    async def fill_in(self, page: Page, who: str, groups: str) -> None:
        """Its people are fixed: the groups are those of the name."""
        await page.fill("#username", who.partition("@")[0])
        await page.fill("#password", PASSWORD)
        await page.click("[type=submit]:visible")

    def _files(self) -> dict[str, str]:
        here = self.directory
        people = "".join(
            f""""{name}:{PASSWORD}" => ["{SUBJECT}" => ["{name}@example.org"], "{NAME}" => ["Alice Example"],
            "{MAIL}" => ["{name}@example.org"], "{GROUPS}" => ["{group}"]],"""
            for name, group in (("alice", "staff"), ("bob", "staff"), ("mallory", "visitors"))
        )
        return {
            "config/config.php": f"""<?php $config = [
"baseurlpath" => "{self.url}/simplesaml/", "certdir" => "{here}/", "loggingdir" => "{here}/logs/",
"datadir" => "{here}/data/", "tempdir" => "{here}/tmp", "metadatadir" => "{here}/metadata",
"secretsalt" => "only-for-a-test-0123456789", "auth.adminpassword" => "only-for-a-test",
"enable.saml20-idp" => true, "module.enable" => ["exampleauth" => true, "core" => true, "saml" => true],
"store.type" => "phpsession", "session.phpsession.savepath" => "{here}/sessions",
"session.cookie.secure" => false, "session.cookie.samesite" => null, "timezone" => "UTC",
"logging.handler" => "file", "showerrors" => true, "metadata.sources" => [["type" => "flatfile"]],
];""",
            "config/authsources.php": f"""<?php $config = [
"admin" => ["core:AdminPassword"], "example-userpass" => ["exampleauth:UserPass", {people}]];""",
            "metadata/saml20-idp-hosted.php": f"""<?php $metadata["{self.url}/idp"] = [
"host" => "__DEFAULT__", "privatekey" => "idp.key", "certificate" => "idp.crt",
"auth" => "example-userpass", "signature.algorithm" => "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256",
"sign.logout" => true, "validate.logout" => true, "validate.authnrequest" => true,
"NameIDFormat" => "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent",
"authproc" => [3 => ["class" => "saml:AttributeNameID", "attribute" => "{SUBJECT}",
 "Format" => "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"]],
];""",
            "metadata/saml20-sp-remote.php": f"""<?php $metadata["{self.sp_url}/saml/metadata"] = [
"AssertionConsumerService" => "{self.sp_url}/saml/acs", "SingleLogoutService" => "{self.sp_url}/saml/sls",
"certData" => "{body(self.sp)}", "saml20.sign.response" => true, "saml20.sign.assertion" => true,
"NameIDFormat" => "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent",
];""",
        }


__all__ = ["GROUPS", "MAIL", "NAME", "SUBJECT", "Idp", "SamlIdp", "SimpleSaml"]
