"""Models: their servers' health, and entries that are added, changed and taken out."""

import json
from html import unescape

from llmgateway.control.people import UserChanges
from llmgateway.domain.catalog import Target
from tests.control.desk import ANN
from tests.portal.house import Browser, Portal
from tests.portal.test_overview import used

ROOT = "/portal/operators"
ENTRY = {"id": "org/new", "targets": [{"url": "http://10.0.0.9:8000/v1", "credential": "upstream-secret"}]}


def entry_in(page: str) -> dict[str, object]:
    text = unescape(page.partition("<textarea")[2].partition(">")[2].partition("</textarea>")[0])
    found: dict[str, object] = json.loads(text)
    return found


async def test_all_models_with_their_servers(ann: Browser, portal: Portal) -> None:
    await used(portal, "aino", "qwen3-32b")
    await ann.get(f"{ROOT}/models")
    assert "http://10.0.0.7:8000/v1" in ann.page
    assert "also called default" in ann.page
    assert ">123<" in ann.page
    for _ in range(20):
        portal.replicas.of(Target(url="http://10.0.0.7:8000/v1", model="m")).failed()
    await ann.get(f"{ROOT}/models")
    assert "Taken out" in ann.page
    assert "Not available" in ann.page
    await ann.get(f"{ROOT}/models?q=nothing")
    assert "No models found" in ann.page


async def test_an_entry_is_added_changed_and_taken_out(ann: Browser, portal: Portal) -> None:
    await ann.get(f"{ROOT}/models/new")
    answer = await ann.post(f"{ROOT}/models/new", {"entry": json.dumps(ENTRY)})
    assert answer.headers["location"] == f"{ROOT}/model/org/new?said=created"
    await ann.get(f"{ROOT}/model/org/new")
    assert "upstream-secret" not in ann.page
    shown = entry_in(ann.page) | {"context": 5000}
    del shown["max_wait"]
    await ann.post(f"{ROOT}/model-change/org/new", {"entry": json.dumps(shown)})
    model = await portal.desk.control.models.get("org/new")
    assert (model.context, model.targets[0].credential) == (5000, "upstream-secret")
    await ann.get(f"{ROOT}/model/org/new")
    shown = entry_in(ann.page)
    del shown["context"]
    await ann.post(f"{ROOT}/model-change/org/new", {"entry": json.dumps(shown)})
    assert (await portal.desk.control.models.get("org/new")).context is None
    await ann.get(f"{ROOT}/model-delete/org/new")
    assert "Take “org/new” out?" in ann.page
    await ann.post(f"{ROOT}/model-delete/org/new")
    assert (await ann.get(f"{ROOT}/model/org/new")).status_code == 404


async def test_entries_that_cannot_be(ann: Browser) -> None:
    taken = json.dumps(ENTRY | {"id": "qwen3-32b"})
    for entry, status in (("{", 422), ("[]", 422), ('{"id": "x"}', 422), ('{"id": "x", "targets": []}', 422),
                          (taken, 409)):  # fmt: skip
        await ann.get(f"{ROOT}/models/new")
        assert (await ann.post(f"{ROOT}/models/new", {"entry": entry})).status_code == status, entry
        assert unescape(ann.page).count(entry) == 1, "what was typed is still there"


async def test_those_of_the_settings_are_only_shown(ann: Browser, portal: Portal) -> None:
    await ann.get(f"{ROOT}/model/qwen3-32b")
    assert "is changed there" in ann.page
    assert "hush-hush" not in ann.page
    assert "<textarea" not in ann.page
    await ann.get(f"{ROOT}/config")
    assert "ADMIN_KEY" in ann.page
    await portal.desk.control.people.change(ANN, "ann", UserChanges(roles=["operator"]))
    assert (await ann.get(f"{ROOT}/config")).status_code == 404
    assert (await ann.get(f"{ROOT}/model/qwen3-32b")).status_code == 200
