from pathlib import Path

import msgspec
import pytest

from llmgateway.domain.catalog import Deadlines, Target
from llmgateway.domain.limits import Limits
from llmgateway.settings.bad_settings import BadSettings
from llmgateway.settings.gateway_file import GatewayFile, StoreTimeouts, file_entry, read_file

CONFIG = Path(__file__).parents[2] / "config"
MODEL = "models: [{id: m, targets: [{url: 'http://h/v1'}]}]\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway.yaml"


def complaints_of(path: Path, text: str, **environ: str) -> list[str]:
    path.write_text(text)
    with pytest.raises(BadSettings) as caught:
        read_file(path, environ)
    return caught.value.complaints


def test_an_empty_file_is_all_defaults(path: Path) -> None:
    for text in ("", "# nothing\n", "{}\n", "models:\nlimits:\ndeadlines: ~\n", "\ufeff{}\n"):
        path.write_text(text)
        assert read_file(path, {}) == GatewayFile()


def test_the_defaults() -> None:
    file = GatewayFile()
    assert (file.currency, file.time_zone, file.keepalive, file.drain, file.drain_pause) == (
        "EUR",
        "UTC",
        15,
        600,
        10,
    )
    assert file.stores == StoreTimeouts(redis_timeout=1, mongo_timeout=5)
    assert file.max_body == 10 * 1024 * 1024


def test_a_whole_file(path: Path) -> None:
    path.write_text("""
currency: USD
time_zone: Europe/Helsinki
deadlines: {pool: 1, total: 60.5}
keepalive: 5
drain: 0
drain_pause: 0
stores: {redis_timeout: 0.5}
max_body: 20MB
models:
  - id: m
    targets: [{url: "http://${HOST}/v1", credential: "${file:key}"}]
    deadlines: {total: 9}
    price: {input: 0.10}
limits:
  default: {requests_per_minute: 60}
  users: {alice: {tokens_per_day: 5}, "no": {}, bob@example.org:}
  projects: {p: {cost_per_month: 1}}
  models: {org/m: {concurrent_requests: 2}}
""")
    (path.parent / "key").write_text("sk-canary\n")
    file = read_file(path, {"HOST": "h:1"})
    assert (file.currency, file.time_zone, file.max_body, file.drain, file.drain_pause) == (
        "USD",
        "Europe/Helsinki",
        20_000_000,
        0,
        0,
    )
    assert file.deadlines == Deadlines(pool=1, total=60.5)
    assert file.stores == StoreTimeouts(redis_timeout=0.5)
    (model,) = file.models
    assert model.targets == (
        Target(
            url="http://h:1/v1",
            model="m",
            credential="sk-canary",
            tokenizer="http://h:1/extras/tokenize/count",
        ),
    )
    assert model.deadlines == Deadlines(pool=1, total=9)
    assert model.price.input == 100_000
    assert file.limits.default == Limits(requests_per_minute=60)
    assert file.limits.users == {
        "alice": Limits(tokens_per_day=5),
        "no": Limits(),
        "bob@example.org": Limits(),
    }
    assert file.limits.projects == {"p": Limits(cost_per_month=1)}
    assert file.limits.models == {"org/m": Limits(concurrent_requests=2)}
    assert "canary" not in repr(file) + repr(file_entry(file))
    assert (
        msgspec.json.decode(msgspec.json.encode(file_entry(file)))["models"][0]["targets"][0]["credential"]
        == "***"
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("currency: eur", "currency: must be a code of three capitals such as EUR, not 'eur'"),
        ("time_zone: Helsinki", "time_zone: must be a time zone such as Europe/Helsinki, not 'Helsinki'"),
        ("time_zone: ../../etc/passwd", "time_zone: must be a time zone"),
        ("deadlines: {idle: 0}", "deadlines.idle: must be more than 0"),
        ("deadlines: {idel: 1}", "deadlines.idel: is unknown; did you mean 'idle'?"),
        ("deadlines: 5", "deadlines: must be a mapping of names to values, not '5'"),
        ("keepalive: true", "keepalive: must be a number, not true"),
        ("keepalive: no", "keepalive: no without quotes"),
        ("keepalive: 015", "keepalive: must be a number without leading zeros, not '015'"),
        ("drain: -1", "drain: must be more than 0"),
        ("drian: 5", "drian: is unknown; did you mean 'drain'?"),
        ("stores: {redis_timeout: 1s}", "stores.redis_timeout: must be a number, not '1s'"),
        ("stores: {timeout: 1}", "stores.timeout: is unknown"),
        ("max_body: 10 apples", "max_body: must be a size such as 10MiB"),
        ("models: {id: m}", "models: must be a list, not a mapping"),
        ("models: [m]", "models[0]: must be a mapping of names to values, not 'm'"),
        ("limits: {user: {}}", "limits.user: is unknown; did you mean 'users'?"),
        ("limits: {users: [alice]}", "limits.users: must be a mapping"),
        ("limits: {users: {a b: {tokens: 1}}}", 'limits.users["a b"].tokens: is unknown'),
        ("limits: {users: {alice: 5}}", "limits.users.alice: must be a mapping"),
        ("limits: {models: {'a b': {}}}", 'limits.models["a b"]: must be printable ASCII'),
        (
            "limits: {default: {requests_per_minute: 1.5}}",
            "limits.default.requests_per_minute: must be a whole number",
        ),
        ("drain: 1\ndrain: 2", "drain: is given twice; first on line 1 (line 2)"),
        ("- a", "{path}: must be a mapping of names to values, not a list"),
        ("a", "{path}: must be a mapping of names to values, not 'a'"),
        ("a: [", "{path} line 1, column 5: "),
        ("max_body: '${NOT}'", "max_body: ${NOT} is not set in the environment"),
        ("keepalive: '${SECRET}'", "keepalive: must be a number, not ***"),
        (
            "models: [{id: m, targets: [{url: '${NOT}'}]}]",
            "models[0].targets[0].url: ${NOT} is not set in the environment",
        ),
        (
            "models: [{id: m, targets: [{url: 'http://${SECRET}@h'}]}]",
            "models[0].targets[0].url: must hold no user name",
        ),
    ],
)
def test_every_wrong_place_is_named(path: Path, text: str, complaint: str) -> None:
    complaints = complaints_of(path, text, SECRET="canary")
    assert len(complaints) == 1
    assert complaints[0].startswith(complaint.replace("{path}", str(path)))
    assert "canary" not in complaints[0]


def test_all_complaints_come_at_once(path: Path) -> None:
    assert complaints_of(
        path, "drian: 1\nkeepalive: x\nmodels: [{id: a/../b}, {id: m}]\nmax_body: off\ncurrency: ${NO}"
    ) == [
        "max_body: off without quotes is a word to some and a boolean to others: "
        'write true or false, or "off" in quotes (line 4)',
        "currency: ${NO} is not set in the environment",
        "keepalive: must be a number, not 'x'",
        "models[0].id: must have no empty, '.' or '..' part between slashes, not 'a/../b'",
        "models[0].targets: must list at least one place where the model is served",
        "models[1].targets: must list at least one place where the model is served",
        "drian: is unknown; did you mean 'drain'?",
    ]


def test_a_name_leads_to_one_model(path: Path) -> None:
    target = "targets: [{url: 'http://h/v1'}]"
    heads = ("id: a", "id: b, aliases: [a, c, b]", "id: a, aliases: [c]")
    text = "models:\n" + "".join(f"- {{{head}, {target}}}\n" for head in heads)
    assert complaints_of(path, text) == [
        "models[1]: the name 'a' is taken already, by models[0]",
        "models[1]: the name 'b' is taken already, by models[1]",
        "models[2]: the name 'a' is taken already, by models[0]",
        "models[2]: the name 'c' is taken already, by models[1]",
    ]


def test_files_that_cannot_be_read(path: Path) -> None:
    def complaint() -> str:
        with pytest.raises(BadSettings) as caught:
            read_file(path, {})
        (only,) = caught.value.complaints
        return only

    assert complaint() == f"{path}: cannot be read: No such file or directory"
    path.write_bytes(b"a: b\nc: \xff\n")
    assert complaint() == f"{path} line 2: is not UTF-8 text"
    path.write_bytes(b"#" * (4 * 1024 * 1024 + 1))
    assert complaint() == f"{path}: is larger than 4194304 bytes"


def test_the_example_says_everything_there_is(path: Path) -> None:
    file = read_file(CONFIG / "gateway.example.yaml", {"INFERENCE_KEY": "k"})
    written = (CONFIG / "gateway.example.yaml").read_text()
    (model,) = file.models
    assert file.currency == "EUR"
    assert all(value is not None for value in msgspec.structs.asdict(model).values())
    assert all(value is not None for value in msgspec.structs.asdict(model.targets[0]).values())
    assert model.price.input == 200_000
    entry = file_entry(file)
    keys = [
        *entry,
        *entry["deadlines"],
        *entry["stores"],
        *entry["sign_in"],
        *entry["models"][0],
        *entry["models"][0]["targets"][0],
        *entry["models"][0]["price"],
        *entry["limits"],
        *entry["fair_share"],
        *entry["fair_share"]["weights"],
        *entry["policy"],
        *entry["policy"]["keys"],
        *entry["policy"]["rules"][0],
        *entry["policy"]["rules"][0]["grants"],
        *Limits.__struct_fields__,
        "tokenizer",
    ]
    assert [key for key in keys if f"{key}:" not in written] == []


def test_what_the_example_calls_defaults_are_the_defaults() -> None:
    file, plain = read_file(CONFIG / "gateway.example.yaml", {"INFERENCE_KEY": "k"}), GatewayFile()
    for name in ("currency", "deadlines", "keepalive", "drain", "drain_pause", "stores", "max_body"):
        assert getattr(file, name) == getattr(plain, name)
