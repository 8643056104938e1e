"""How long what is kept, as it is written."""

from pathlib import Path

import pytest

from llmgateway.domain.upkeep import Retention
from llmgateway.settings import BadSettings
from llmgateway.settings.gateway_file import GatewayFile, file_entry, read_file


def read(tmp_path: Path, text: str) -> GatewayFile:
    path = tmp_path / "gateway.yaml"
    path.write_text(text)
    return read_file(path, {})


def test_all_classes_and_what_is_left_out(tmp_path: Path) -> None:
    file = read(tmp_path, "retention: {records: 90d, daily: 800d, audit: forever}\nkey_expiry_warning: 0d\n")
    assert file.retention == Retention(records=90, hourly=400, daily=800, audit=None)
    assert file.key_expiry_warning == 0
    entry = file_entry(file)
    assert entry["retention"] == {"records": "90d", "hourly": "400d", "daily": "800d", "audit": "forever"}
    assert entry["key_expiry_warning"] == "0d"


def test_the_defaults(tmp_path: Path) -> None:
    file = read(tmp_path, "")
    assert file.retention == Retention(records=400, hourly=400, daily=None, audit=None)
    assert file.key_expiry_warning == 14


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("retention: {records: 6d}", "records: must be days such as 14d, at least 7d, or forever, not 6d"),
        ("retention: {hourly: 34d}", "hourly: must be days such as 35d, at least 35d, or forever, not 34d"),
        ("retention: {records: 400}", "not 400"),
        ("retention: {records: 1y}", "not 1y"),
        ("retention: {seconds: 5d}", "retention.seconds"),
        ("key_expiry_warning: forever", "must be days such as 14d, at least 0d, not forever"),
        ("retention: {audit: 99999d}", "not 99999d"),
    ],
)
def test_what_is_no_time_to_keep(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(BadSettings) as caught:
        read(tmp_path, text)
    (said,) = caught.value.complaints
    assert complaint in said.replace("'", "")
