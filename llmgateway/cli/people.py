"""`llmgateway users` and `llmgateway models`: who there is, and what they may call."""

from llmgateway.cli.keys import say_keys
from llmgateway.cli.opened import ACTOR, all_of, opened, say_spread
from llmgateway.cli.options import Arguments
from llmgateway.cli.printing import asked, complain, first_line, say, say_done, say_fields, say_json, say_rows
from llmgateway.control.keys import key_view
from llmgateway.control.models import model_view
from llmgateway.control.people import UserChanges, user_view
from llmgateway.domain.errors import InvalidRequest
from llmgateway.domain.secret import Secret

COLUMNS = ("id", "name", "email", "roles", "project", "state", "lapsed", "created_at")
KEY_COLUMNS = ("id", "name", "state", "models", "created_at", "expires_at")
MODEL_COLUMNS = ("id", "aliases", "source", "targets", "context", "price")


async def listing(arguments: Arguments) -> int:
    given = {"state": arguments.state} if arguments.state else {}
    async with opened(arguments) as here:
        rows = [user_view(user) for user in await all_of(here.control.people.page, given)]
    none = "There are no users; a user's first key makes one."
    say_rows(rows, COLUMNS, as_json=arguments.as_json, none=none)
    return 0


async def show(arguments: Arguments) -> int:
    async with opened(arguments) as here:
        user = user_view(await here.control.people.get(arguments.id))
        keys = [key_view(key) for key in await all_of(here.control.keys.page, {"user": arguments.id})]
    if arguments.as_json:
        say_json({**user, "keys": keys})
    else:
        say_fields(user, as_json=False)
        say()
        say_keys(keys, KEY_COLUMNS, as_json=False, none="No keys.")
    return 0


async def suspend(arguments: Arguments) -> int:
    return await _change(arguments, UserChanges(state="suspended"), "is suspended: all keys are refused")


async def activate(arguments: Arguments) -> int:
    return await _change(arguments, UserChanges(state="active"), "is active")


async def forget(arguments: Arguments) -> int:
    """Whoever asks types the id again, unless the command says yes."""
    if not arguments.yes and asked(f"This cannot be undone. Type {arguments.id} to go on: ") != arguments.id:
        raise InvalidRequest(
            "Nothing was done: the id was not typed. With --yes nobody is asked.", param="id"
        )
    async with opened(arguments) as here:
        await here.erasure.forget(ACTOR, arguments.id)
    if arguments.as_json:
        say_json({"id": arguments.id, "forgotten": True})
    else:
        say(f"The account {arguments.id} is ended: its keys are revoked, and what was kept of the person is")
        say("gone. What it used stays in the ledger under a pseudonym; the audit log keeps its lines.")
    return 0


async def password(arguments: Arguments) -> int:
    given = Secret(first_line()) if arguments.is_piped else None
    async with opened(arguments) as here:
        made = await here.accounts.set_password(ACTOR, arguments.id, given)
    if made.ended is None:
        complain("the password is set, but sessions cannot be reached now: who is signed in stays so")
    if arguments.as_json:
        shown = {"password": made.password.reveal()} if given is None else {}
        say_json({"id": arguments.id, "is_new": made.is_new, "sessions_ended": made.ended, **shown})
        return 0
    what = "has an account" if made.is_new else "has a new password"
    say(f"The user {arguments.id} {what}. Sessions that were ended: {made.ended or 0}.")
    if given is None:
        say(f"\n{made.password.reveal()}\n\nThis is the password. It is shown this once; pass it on with")
        say("care. It can be changed on the account page of the portal.")
    return 0


async def _change(arguments: Arguments, changes: UserChanges, words: str) -> int:
    async with opened(arguments) as here:
        user = await here.control.people.change(ACTOR, arguments.id, changes)
        say_done(f"The user {user.id} {words}.", user_view(user), as_json=arguments.as_json)
        await say_spread(here.state, as_json=arguments.as_json)
        if user.state == "active" and user.lapsed is not None and not arguments.as_json:
            say(f"All keys are refused still: by the policy ({user.lapsed}), until a sign-in it admits.")
    return 0


async def models(arguments: Arguments) -> int:
    async with opened(arguments) as here:
        rows = [model_view(model) for model in await all_of(here.control.models.page)]
    if not arguments.as_json:
        for row in rows:
            row["targets"] = [target.get("url", target["provider"]) for target in row["targets"]]
    say_rows(rows, MODEL_COLUMNS, as_json=arguments.as_json, none="There are no models; see LLM_MODELS.")
    return 0
