"""Examples of calls: one for every endpoint, of a model that readers put in."""

from llmgateway.domain.endpoints import ENDPOINTS
from llmgateway.edge.examples import BODIES, FORMS, NO_MODEL, examples_of


def test_every_endpoint_has_an_example() -> None:
    by_form = {
        form: {path for path, one in ENDPOINTS.items() if one.form == form} for form in ("json", "multipart")
    }
    assert set(BODIES) == by_form["json"] | {"/extras/tokenize/count"}
    assert set(FORMS) == by_form["multipart"]
    for path in by_form["json"]:
        examples = examples_of(ENDPOINTS[path])
        assert {one["value"]["model"] for one in examples.values()} == {NO_MODEL}
        assert all(one["summary"] for one in examples.values())


def test_what_generates_is_shown_whole_and_streamed() -> None:
    for endpoint in ENDPOINTS.values():
        if endpoint.form == "json":
            streamed = [one["value"].get("stream", False) for one in examples_of(endpoint).values()]
            assert streamed == ([False, True] if endpoint.generates else [False])
            assert endpoint.generates == endpoint.summary.endswith("whole or streamed")
