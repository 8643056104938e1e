from collections.abc import Mapping
from pathlib import Path

import pytest

from llmgateway.domain.secret import Secret
from llmgateway.settings import BadSettings, Settings
from llmgateway.settings.declared import BY_NAME
from llmgateway.settings.environment import Environment, of_this_process

KEY = "k" * 32
PORT = BY_NAME["LLMGATEWAY_PORT"]
ADMIN = BY_NAME["ADMIN_KEY"]
NONE: Mapping[str, str] = {}


def complaints_of(environ: Mapping[str, str], overrides: Mapping[str, str] = NONE) -> list[str]:
    complaints: list[str] = []
    environment = Environment(environ, overrides, complaints)
    for setting in BY_NAME.values():
        environment.take(setting)
    return complaints


def test_the_command_line_goes_before_the_environment_and_that_before_the_default() -> None:
    def port(environ: Mapping[str, str], overrides: Mapping[str, str]) -> object:
        return Environment(environ, overrides, []).take(PORT)

    assert port({"LLMGATEWAY_PORT": "1"}, {"LLMGATEWAY_PORT": "2"}) == 2
    assert port({"LLMGATEWAY_PORT": "1"}, {"LLMGATEWAY_PORT": ""}) == 1
    assert port({"LLMGATEWAY_PORT": " "}, {}) == 8080


def test_a_secret_may_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    assert Environment({"ADMIN_KEY_FILE": str(file)}, {}, []).take(ADMIN) == Secret(KEY)
    assert Environment(
        {
            "ADMIN_KEY": "x" * 40,
        },
        {"ADMIN_KEY_FILE": str(file)},
        [],
    ).take(ADMIN) == Secret(KEY)
    file.write_text("canary")
    (complaint,) = complaints_of({"ADMIN_KEY_FILE": str(file)})
    assert complaint.startswith("ADMIN_KEY: must have at least 32 characters, not 6")


def test_a_secret_given_twice_or_not_readable_is_complained_about(tmp_path: Path) -> None:
    assert complaints_of({"ADMIN_KEY": KEY, "ADMIN_KEY_FILE": "/x"}) == [
        "ADMIN_KEY: is given as ADMIN_KEY_FILE too; give one"
    ]
    (complaint,) = complaints_of({"INFERENCE_KEY_FILE": str(tmp_path / "absent")})
    assert complaint.startswith("INFERENCE_KEY_FILE: cannot read the file")


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("LLMGATEWAY_PROT", "LLMGATEWAY_PROT: is no setting; did you mean 'LLMGATEWAY_PORT'?"),
        (
            "LLMGATEWAY_KEY_PEPER",
            "LLMGATEWAY_KEY_PEPER: is no setting; did you mean 'LLMGATEWAY_KEY_PEPPER'?",
        ),
        ("LLMGATEWAY_PORT_FILE", "LLMGATEWAY_PORT_FILE: only a secret may be given as a file"),
        ("LLMGATEWAY_ADMIN_KEY", "LLMGATEWAY_ADMIN_KEY: is no setting; did you mean 'ADMIN_KEY'?"),
        ("LLMGATEWAY_Z", "LLMGATEWAY_Z: is no setting"),
    ],
)
def test_an_unknown_variable_of_ours_is_a_typing_error(name: str, complaint: str) -> None:
    assert complaints_of({name: "1"}) == [complaint]
    assert complaints_of({}, {name: "1"}) == [complaint]


def test_variables_of_others_are_none_of_our_business() -> None:
    assert (
        complaints_of(
            {"PATH": "/bin", "LLM_OTHER": "1", "AWS_SHARED_CREDENTIALS_FILE": "/x", "LLMGATEWAY_X": ""}
        )
        == []
    )
    assert complaints_of({}, {"PATH": "/bin"}) != []


def test_what_kubernetes_tells_of_services_is_no_setting() -> None:
    links = {
        "LLMGATEWAY_SERVICE_HOST": "10.0.0.1",
        "LLMGATEWAY_SERVICE_PORT": "80",
        "LLMGATEWAY_SERVICE_PORT_HTTP": "80",
        "LLMGATEWAY_PORT": "tcp://10.0.0.1:80",
        "LLMGATEWAY_PORT_80_TCP": "tcp://10.0.0.1:80",
        "LLMGATEWAY_PORT_80_TCP_PROTO": "tcp",
        "LLMGATEWAY_PORT_80_TCP_PORT": "80",
        "LLMGATEWAY_PORT_80_TCP_ADDR": "10.0.0.1",
        "LLMGATEWAY_REDIS_SERVICE_HOST": "10.0.0.2",
        "LLMGATEWAY_REDIS_PORT": "tcp://10.0.0.2:6379",
    }
    assert complaints_of(links) == []
    assert Environment(links, {}, []).take(PORT) == 8080


def test_a_wrong_value_leaves_the_default_behind() -> None:
    complaints: list[str] = []
    assert Environment({"LLMGATEWAY_PORT": "x"}, {}, complaints).take(PORT) == 8080
    assert complaints == ["LLMGATEWAY_PORT: must be a number, not 'x'"]


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("LLM_DEFAULT_URL", "h:8000", "must begin with http:// or https://"),
        ("LLM_MODELS", "a b", "must be printable ASCII"),
        ("INFERENCE_KEY", "canary key", "must be printable ASCII without spaces"),
        ("ADMIN_KEY", "canary", "must have at least 32 characters, not 6"),
        ("ADMIN_KEY", "canary " * 5, "must be printable ASCII without spaces"),
        ("LLMGATEWAY_SECRET_KEYS", f"{KEY},canary", "must have at least 32 characters, not 6"),
        ("LLMGATEWAY_SECRET_KEYS", f"{KEY},{KEY}", "must not name the same twice"),
        ("LLMGATEWAY_KEY_PEPPER", "canary", "must have at least 32"),
        ("REDIS_URL", "http://:canary@h", "must look like redis://"),
        ("MONGO_URL", "http://:canary@h", "must look like mongodb://"),
        ("WEB_CONCURRENCY", "0", "must be a whole number from 1"),
        ("LLMGATEWAY_PUBLIC_URL", "https://h/?x", "must hold no query"),
        ("LLMGATEWAY_HOST", "http://h", "must be an address or a host name"),
        ("LLMGATEWAY_PORT", "65536", "must be a whole number from 0 to 65535, not '65536'"),
        ("LLMGATEWAY_TRUSTED_PROXIES", "10.0.0.0/8,*", "must hold addresses or ranges"),
        ("LLMGATEWAY_LOG_LEVEL", "loud", "must be debug or info or"),
        ("LLMGATEWAY_LOG_FORMAT", "xml", "must be console or json, not 'xml'"),
        ("RATE_LIMIT", "1/s", "must be a number"),
        ("LLMGATEWAY_METRICS", "on", "must be open or admin or off, not 'on'"),
        ("OLLAMA_URL", "11434", "must begin with http://"),
        ("OPENAI_API_KEY", "sk-canary\tx", "must not hold control characters"),
    ],
)
def test_every_wrong_value_is_named_and_no_secret_shown(name: str, value: str, complaint: str) -> None:
    (found,) = complaints_of({name: value})
    assert found.startswith(f"{name}: {complaint}")
    assert "canary" not in found


def test_the_environment_of_this_process_is_a_copy() -> None:
    assert "PATH" in of_this_process()
    assert of_this_process() is not of_this_process()


@pytest.mark.parametrize("name", ["ADMIN_KEY", "LLMGATEWAY_SECRET_KEYS", "LLMGATEWAY_KEY_PEPPER"])
@pytest.mark.parametrize("value", ["", "some-random-string", " " * 40])
def test_s_ses_05_s_key_13_a_secret_that_is_none_stops_the_start(name: str, value: str) -> None:
    """Where others can reach the gateway, nothing stands in for a secret that is missing or too short."""
    good = "0123456789abcdef" * 2
    secrets = dict.fromkeys(("ADMIN_KEY", "LLMGATEWAY_SECRET_KEYS", "LLMGATEWAY_KEY_PEPPER"), good)
    stores = {"REDIS_URL": "redis://r", "MONGO_URL": "mongodb://m/gateway?replicaSet=rs0"}
    assert Settings.load({**secrets, **stores}).admin_key is not None
    with pytest.raises(BadSettings) as refused:
        Settings.load({**secrets, **stores, name: value})
    assert [one for one in refused.value.complaints if one.startswith(name)], refused.value.complaints
    assert "some-random" not in str(refused.value)
