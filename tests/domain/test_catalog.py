"""The catalogue: names lead to models, the first given wins, credentials are not printed."""

from llmgateway.domain.catalog import Catalog, Model, Target


def model(id: str, *aliases: str, url: str = "http://a:1/v1") -> Model:
    return Model(id=id, aliases=aliases, targets=(Target(url=url, model=id),))


def test_models_are_found_by_id_and_alias() -> None:
    catalog = Catalog([model("org/big", "default"), model("small")])
    assert [m.id for m in catalog] == ["org/big", "small"]
    assert catalog.find("default") is catalog.find("org/big")
    assert catalog.find("Default") is None
    assert catalog.find("") is None


def test_the_first_of_a_name_wins_and_an_id_goes_before_an_alias() -> None:
    first, second, third = model("a", "x"), model("a", url="http://b:1/v1"), model("x")
    catalog = Catalog([first, second, third])
    assert catalog.find("a") is first
    assert catalog.find("x") is third
    assert len(catalog.models) == 2


def test_a_target_names_its_replica_and_hides_its_credential() -> None:
    target = Target(url="http://10.0.0.7:8000/v1", model="m", credential="sk-secret")
    assert target.replica == "10.0.0.7:8000"
    assert Target(provider="echo", url="", model="echo").replica == "echo"
    assert "sk-secret" not in repr(target)
    assert "sk-secret" not in repr(Model(id="m", targets=(target,)))
