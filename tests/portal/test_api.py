"""The page of the API: its examples are such that the gateway takes them."""

import json

from llmgateway.domain.endpoints import ENDPOINTS
from llmgateway.portal.api import BODIES, OTHERS, SUMMARIES, examples
from tests.portal.house import Browser


def test_every_endpoint_that_takes_json_has_an_example() -> None:
    assert set(SUMMARIES) == {path for path, endpoint in ENDPOINTS.items() if endpoint.form == "json"}
    assert all(ENDPOINTS[path].summary == summary for path, summary in SUMMARIES.items())
    assert set(BODIES) == set(SUMMARIES) | {path for method, path, _ in OTHERS if method == "POST"}
    for one in examples("org/m"):
        assert (json.loads(one.body)["model"] == "org/m") if one.method == "POST" else not one.body


async def test_the_page_works_without_a_script(alice: Browser) -> None:
    await alice.get("/portal/api")
    assert "curl http://127.0.0.1:8080/v1/embeddings" in alice.page
    assert "&#34;model&#34;: &#34;qwen3-32b&#34;" in alice.page
    assert (await alice.get("/request-viewer")).headers["location"] == "/portal/api"
