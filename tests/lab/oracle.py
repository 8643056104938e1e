"""The accounting oracle: what the upstream's own ledger says must be what the gateway's ledger says."""

from collections import Counter, defaultdict

from tests.lab.exchange import Call
from tests.lab.gateway import Gateway, Json
from tests.lab.upstream import ScriptedUpstream
from tests.lab.waiting import eventually_answers

SECONDS = 20.0


async def books_agree(
    gateway: Gateway, upstream: ScriptedUpstream, seconds: float = SECONDS, **where: str
) -> list[Json]:
    """The records, once there is one for every request that the upstream accepted. No record stands twice;
    what was completed has the upstream's tokens, and what was not has no more than the upstream said."""
    calls: defaultdict[str, list[Call]] = defaultdict(list)
    for call in upstream.calls:
        calls[str(call.request_id)].append(call)

    async def all_there() -> list[Json]:
        records = await gateway.records(**where)
        return records if calls.keys() <= {record["request_id"] for record in records} else []

    if not calls:
        return await gateway.records(**where)
    records = await eventually_answers(all_there, f"{len(calls)} requests are in the ledger", seconds)
    for field in ("id", "request_id"):
        assert [name for name, count in Counter(r[field] for r in records).items() if count > 1] == [], field
    for record in records:
        said = calls.pop(record["request_id"], [])
        assert record["outcome"] is not None, record
        _agrees(record, said)
    return records


def _agrees(record: Json, said: list[Call]) -> None:
    tokens = record["tokens"]["prompt"], record["tokens"]["completion"]
    if record["outcome"] == "completed":
        assert said, f"nobody was asked: {record}"
        assert tokens == (said[-1].prompt_tokens, said[-1].completion_tokens), (record, said[-1].model)
    elif record["outcome"] != "recovered":  # what a dead process left is an estimate, and says so
        most = max((call.completion_tokens for call in said), default=0)
        assert tokens[1] <= most, (record, most)
        assert record["usage_source"] != "upstream" or tokens[1] == most, (record, most)
    else:
        assert record["usage_source"] == "estimated", record


def outcomes(records: list[Json]) -> Counter[str]:
    return Counter(record["outcome"] for record in records)
