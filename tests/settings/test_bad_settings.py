from llmgateway.settings.bad_settings import BadSettings


def test_all_complaints_stand_in_the_message() -> None:
    bad = BadSettings(iter(["A: is wrong", "B: too"]))
    assert bad.complaints == ["A: is wrong", "B: too"]
    assert str(bad) == "These settings cannot work:\n  - A: is wrong\n  - B: too"
