"""What operators may write of SAML, and what they are told of what cannot be."""

from pathlib import Path

import pytest

from llmgateway.domain.saml import SUBJECTS, Saml
from llmgateway.settings import BadSettings, read_file
from llmgateway.settings.gateway_file import file_entry
from tests.lab.identity import new_pair

PAIR = new_pair("sp")
FEDERATION = new_pair("federation")


def written(folder: Path, saml: str) -> Path:
    (folder / "sp.crt").write_text(PAIR.certificate)
    (folder / "sp.key").write_text(PAIR.key.reveal())
    (folder / "federation.crt").write_text(FEDERATION.certificate)
    path = folder / "gateway.yaml"
    path.write_text(f"saml:\n{saml}")
    return path


def read(folder: Path, saml: str) -> Saml:
    found = read_file(written(folder, saml), {}).saml
    assert found is not None
    return found


def complaints(folder: Path, saml: str) -> list[str]:
    with pytest.raises(BadSettings) as bad:
        read(folder, saml)
    return bad.value.complaints


CERTIFICATES = '  certificates: [{certificate: "${file:sp.crt}", key: "${file:sp.key}"}]\n'
PROVIDERS = "  providers: [{id: uni, metadata: idp.xml}]\n"


def test_little_is_needed(tmp_path: Path) -> None:
    saml = read(tmp_path, CERTIFICATES + PROVIDERS)
    assert saml.pairs == (PAIR,)
    assert [(one.id, one.name, one.metadata) for one in saml.providers] == [("uni", "uni", "idp.xml")]
    assert (saml.subject, saml.entity_id, saml.allows_unsolicited) == (SUBJECTS, None, False)


def test_everything_can_be_said(tmp_path: Path) -> None:
    saml = read(tmp_path, CERTIFICATES + """
  entity_id: https://gateway.example.org
  providers:
    - {id: uni, name: University, metadata: "https://idp.example.org/metadata/?app=1", entity_id: "urn:idp",
       metadata_certificate: "${file:federation.crt}", scopes: [example.org]}
  subject: [name-id]
  names: [cn]
  mails: [mail]
  allows_unsolicited: true
""")  # fmt: skip
    (provider,) = saml.providers
    assert (provider.name, provider.entity_id, provider.scopes) == ("University", "urn:idp", ("example.org",))
    assert provider.metadata == "https://idp.example.org/metadata/?app=1"
    assert provider.metadata_certificate == FEDERATION.certificate
    assert (saml.entity_id, saml.subject, saml.allows_unsolicited) == (
        "https://gateway.example.org", ("name-id",), True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("saml", "complaint"),
    [
        (PROVIDERS, "saml.certificates: must hold one to 2 pairs of certificate and key"),
        (CERTIFICATES, "saml.providers: must name at least one identity provider"),
        (CERTIFICATES + "  providers: [{id: a, metadata: x}, {id: a, metadata: y}]\n",
         "saml.providers: must have an id each, of its own"),
        (CERTIFICATES + "  providers: [{id: Uni, metadata: x}]\n",
         "saml.providers[0].id: must be small letters, digits and '-', not 'Uni'"),
        (CERTIFICATES + "  providers: [{id: uni}]\n", "saml.providers[0].metadata: is missing"),
        (CERTIFICATES + '  providers: [{id: uni, metadata: "http://idp.example.org"}]\n',
         "saml.providers[0].metadata: must be a path or an https:// address, not 'http://idp.example.org'"),
        (CERTIFICATES + '  providers: [{id: uni, metadata: "https://idp.example.org"}]\n',
         "saml.providers[0].metadata_certificate: is needed: what comes over the network must be signed"),
        (CERTIFICATES + '  providers: [{id: uni, metadata: "https://idp.example.org/m?a=<b>",'
         ' metadata_certificate: "${file:federation.crt}"}]\n',
         "saml.providers[0].metadata: must be an address that can be asked for as it is, not "
         "'https://idp.example.org/m?a=<b>'"),
        (CERTIFICATES + PROVIDERS + "  subject: [mail]\n",
         "saml.subject: must not be a mail address alone: those change hands"),
        (CERTIFICATES + PROVIDERS + "  names: [name-id]\n", "saml.names: name-id is a subject only"),
        (CERTIFICATES + PROVIDERS + "  entity_id: gateway\n",
         "saml.entity_id: must be a URI such as https://gateway.example.org, not 'gateway'"),
        (CERTIFICATES + PROVIDERS + '  entity_id: "https://x/?a&b"\n',
         "saml.entity_id: must be a URI such as https://gateway.example.org, not 'https://x/?a&b'"),
        (CERTIFICATES + PROVIDERS + "  subjects: [x]\n",
         "saml.subjects: is unknown; did you mean 'subject'?"),
        (PROVIDERS + '  certificates: [{certificate: "${file:sp.crt}", key: "${file:sp.crt}"}]\n',
         "saml.certificates[0].key: must be the text of a PEM file, such as ${file:saml/sp.crt}"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said(tmp_path: Path, saml: str, complaint: str) -> None:
    assert complaints(tmp_path, saml) == [complaint]


def test_s_saml_21_metadata_that_anybody_could_change_on_the_way_is_not_taken(tmp_path: Path) -> None:
    plain = CERTIFICATES + '  providers: [{id: uni, metadata: "http://idp.example.org/metadata"}]\n'
    assert "https://" in complaints(tmp_path, plain)[0]


def test_keys_are_shown_to_nobody(tmp_path: Path) -> None:
    file = read_file(written(tmp_path, CERTIFICATES + PROVIDERS), {})
    assert "PRIVATE KEY" not in str(file_entry(file))
    assert "PRIVATE KEY" not in repr(file)
