import re
from pathlib import Path

from llmgateway.portal.assets import DIRECTORY, FOR_EVER, Assets
from tests.portal.house import Browser


async def test_files_are_named_by_what_is_in_them_and_kept_for_ever(browser: Browser) -> None:
    for name, url in Assets().url_of.items():
        answer = await browser.get(url)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == FOR_EVER
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.content == file(name)
        assert "set-cookie" not in answer.headers


async def test_s_prx_21_a_thousand_ranges_are_one_whole_file(browser: Browser) -> None:
    name, url = next(iter(Assets().url_of.items()))
    ranges = ",".join(f"{n}-{n}" for n in range(0, 20_000, 2))
    answer = await browser.get(url, range=f"bytes={ranges}")
    assert (answer.status_code, answer.content) == (200, (DIRECTORY / name).read_bytes())


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
    for path in DIRECTORY.iterdir():
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|@import|url\(", text), path.name
