"""`llmgateway policy explain`: which rule of the configuration gives what, to an assertion or to a key."""

from pathlib import Path

import msgspec

from llmgateway.cli.assertion import read_assertion, told
from llmgateway.cli.limits import described
from llmgateway.cli.opened import opened
from llmgateway.cli.options import Arguments, settings_of
from llmgateway.cli.printing import say, say_fields, say_json, say_rows
from llmgateway.control.explain import Story, explain_key
from llmgateway.control.moments import written
from llmgateway.control.policy import decide
from llmgateway.domain.policy import Policy
from llmgateway.domain.ports import SystemClock

FINE, TROUBLE = 0, 1
NOT_VERIFIED = "Nothing was verified: neither signature nor time, issuer or audience."


async def explain(arguments: Arguments) -> int:
    """1 where nobody would be let in, or calls are refused."""
    if arguments.key is not None:
        async with opened(arguments) as here:
            policy = here.settings.file.policy
            story = await explain_key(here.control, policy, SystemClock(), arguments.key)
        _tell_story(story, as_json=arguments.as_json)
        return TROUBLE if story.troubles else FINE
    policy = settings_of(arguments).file.policy
    return _explain_assertion(policy, Path(arguments.assertion), arguments.issuer, as_json=arguments.as_json)


def _explain_assertion(policy: Policy, path: Path, issuer: str | None, *, as_json: bool) -> int:
    asserted = read_assertion(path)
    provider = asserted.provider if issuer is None else issuer
    decision = decide(policy, asserted.attributes, provider)
    rows = [
        {"what": grant.what, "value": grant.value, "most": grant.most, "rule": grant.rule}
        for grant in decision.grants
    ]
    if as_json:
        say_json({
            "is_admitted": decision.is_admitted, "is_verified": False, "provider": provider,
            "rules": decision.rules, "grants": rows, "attributes": asserted.attributes,
        })  # fmt: skip
        return FINE if decision.is_admitted else TROUBLE
    say(f"Admitted: {'yes' if decision.is_admitted else 'no, since no rule gives a role'}.")
    say(f"Rules that match: {', '.join(decision.rules) or 'none'} (of {len(policy.rules)}).")
    say(f"Attributes: {told(asserted.attributes)}. Identity provider: {provider or 'not named'}.")
    say(NOT_VERIFIED)
    say()
    say_rows(rows, ("what", "value", "most", "rule"), as_json=False, none="Nothing is granted.")
    return FINE if decision.is_admitted else TROUBLE


def _tell_story(story: Story, *, as_json: bool) -> None:
    key, user = story.key, story.user
    head = {
        "key": key.id, "name": key.name, "user": key.user, "project": key.project,
        "calls_pass": not story.troubles, "troubles": story.troubles,
        "provider": None if user is None else user.provider,
        "signed_in_at": None if user is None else written(user.signed_in_at),
        "sign_in_due": written(story.sign_in_due),
    }  # fmt: skip
    sources = [msgspec.structs.asdict(source) for source in story.sources]
    limits = [
        {"scope": found.subject.kind, "id": found.subject.id, "limits": described(found.effective),
         "source": found.source or "default"}
        for found in story.limits
    ]  # fmt: skip
    restricted = None if key.models is None else list(key.models)
    if as_json:
        say_json({**head, "sources": sources, "limits": limits, "models": story.models,
                  "key_models": restricted})  # fmt: skip
        return
    say_fields(head, as_json=False)
    say()
    say_rows(sources, ("what", "value", "source"), as_json=False, none="Its owner is not known yet.")
    say()
    say_rows(limits, ("scope", "id", "limits", "source"), as_json=False, none="Nothing is limited.")
    say()
    say(f"Models that it may call: {', '.join(story.models) or 'none'}.")
    if restricted is not None:
        say(f"The key itself is restricted to: {', '.join(restricted)}.")
