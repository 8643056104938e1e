import pytest

from llmgateway.portal.paths import path_to


@pytest.mark.parametrize(
    ("pattern", "parameters", "path"),
    [
        ("/portal", {}, "/portal"),
        ("/portal/usage", {"from": "2026-11-20", "key": ""}, "/portal/usage?from=2026-11-20"),
        ("/portal/keys/{id}", {"id": "a b", "said": "x&y"}, "/portal/keys/a%20b?said=x%26y"),
        ("/portal/models/{id:path}", {"id": "org/m?#"}, "/portal/models/org/m%3F%23"),
    ],
)
def test_what_the_pattern_does_not_name_is_the_query(
    pattern: str, parameters: dict[str, str], path: str
) -> None:
    assert path_to(pattern, parameters) == path
