import pickle

import pytest

from llmgateway.domain.secret import Secret


def test_a_secret_shows_itself_only_by_name() -> None:
    secret = Secret("canary")
    assert secret.reveal() == "canary"
    assert {repr(secret), str(secret), f"{secret}", f"{secret!r}", "%s" % secret} == {"***"}  # noqa: UP031


def test_equal_secrets_are_equal_and_no_secret_is_its_text() -> None:
    assert Secret("ä") == Secret("ä") != Secret("b")
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
    assert Secret("a") != "a"


def test_a_secret_is_not_pickled() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(Secret("canary"))
