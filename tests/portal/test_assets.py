import gzip
import hashlib
import re
from pathlib import Path

import pytest

from llmgateway.portal.assets import DIRECTORY, FOR_EVER, Assets, takes_gzip
from tests.portal.house import Browser


def file(name: str) -> bytes:
    (path,) = DIRECTORY.rglob(name)
    return path.read_bytes()


async def test_files_are_named_by_what_is_in_them_and_kept_for_ever(browser: Browser) -> None:
    for name, url in Assets().url_of.items():
        answer = await browser.get(url)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == FOR_EVER
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.content == file(name)
        assert "set-cookie" not in answer.headers
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.headers["vary"] == "Accept-Encoding"


async def test_who_takes_no_gzip_gets_none(browser: Browser) -> None:
    for name, url in Assets().url_of.items():
        answer = await browser.get(url, accept_encoding="identity")
        assert "content-encoding" not in answer.headers
        assert answer.content == file(name)
        assert int(answer.headers["content-length"]) == len(file(name))


async def test_what_is_zipped_is_so_once_and_the_same_in_every_process() -> None:
    name, url = "app.css", Assets().url_of["app.css"].rpartition("/")[2]
    first, second = Assets(), Assets()
    bodies = [await one.zipped(url) for one in (first, first, second)]
    assert bodies[0] is bodies[1]
    assert bodies[0] == bodies[2]
    assert gzip.decompress(bodies[0]) == file(name)


@pytest.mark.parametrize(
    ("accepted", "takes"),
    [
        ("gzip, deflate, br", True),
        ("br;q=1.0, GZIP ; q=0.5", True),
        (" gzip ; q=0.5 , br", True),
        ("br , gzip ", True),
        ("*", True),
        ("*;q=0", False),
        ("gzip;q=0, *", False),
        ("gzip;q=0.000", False),
        ("identity", False),
        ("", False),
        ("gzipped", False),
        ("gzip;q=nonsense", False),
        ("gzip x", False),
    ],
)
def test_who_takes_gzip(accepted: str, takes: bool) -> None:
    assert takes_gzip(accepted) is takes


@pytest.mark.parametrize(
    ("vendored", "licences"),
    [
        ("swagger-ui", {"LICENSE": "Apache License", "NOTICE": "SmartBear"}),
        ("chartjs", {"LICENSE.md": "Chart.js Contributors", "LICENSE-kurkle-color.md": "Jukka Kurkela"}),
    ],
)
def test_what_is_vendored_is_what_its_note_says(vendored: str, licences: dict[str, str]) -> None:
    directory = DIRECTORY / vendored
    told = dict(re.findall(r"^([0-9a-f]{64})  (\S+)$", (directory / "README.md").read_text(), re.MULTILINE))
    files = (path for path in directory.iterdir() if path.name not in {"README.md", *licences})
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert found == {name: digest for digest, name in told.items()}
    for name, words in licences.items():
        assert words in (directory / name).read_text()


async def test_s_prx_21_a_thousand_ranges_are_one_whole_file(browser: Browser) -> None:
    name, url = next(iter(Assets().url_of.items()))
    ranges = ",".join(f"{n}-{n}" for n in range(0, 20_000, 2))
    answer = await browser.get(url, range=f"bytes={ranges}")
    assert (answer.status_code, answer.content) == (200, file(name))


def test_a_changed_file_has_another_name(tmp_path: Path) -> None:
    (tmp_path / "app.css").write_text("a {}")
    (tmp_path / "notes.txt").write_text("not served")
    before = Assets(tmp_path).url_of
    (tmp_path / "app.css").write_text("b {}")
    assert Assets(tmp_path).url_of != before
    assert list(before) == ["app.css"]


async def test_other_names_are_not_there(browser: Browser) -> None:
    for name in ("app.css", "app.000000000000.css", "..%2fdoor.py", "../door.py"):
        assert (await browser.get(f"/portal/static/{name}")).status_code in (303, 404)


def test_styles_and_scripts_name_nothing_elsewhere() -> None:
    """Of the vendored ones the page's policy takes care: tests/e2e/test_browser.py."""
    own = [path for path in DIRECTORY.iterdir() if path.is_file()]
    assert len(own) >= 7
    for path in own:
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|@import|url\(", text), path.name
