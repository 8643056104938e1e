"""The key that a person's browser calls models with from the portal's playground: one for each user, renewed
when it is asked for, and recorded in the ledger like any other."""

from datetime import timedelta

from llmgateway.control.audit import Actor
from llmgateway.control.keys import Issued, KeyChanges, Keys, NewKey
from llmgateway.control.moments import now_of
from llmgateway.domain.keys import Key
from llmgateway.domain.ports import Clock

NAME = "Playground"
LIFE = timedelta(hours=1)


class Playground:
    """Keys are kept, since records name them; so a user's is given a new secret each time."""

    def __init__(self, keys: Keys, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock

    async def issue(self, actor: Actor, user_id: str) -> Issued:
        """The one before stays valid as long as it would have: another window may be using it."""
        until = now_of(self._clock) + LIFE
        key = await self._of(user_id)
        if key is None:
            return await self._keys.create(
                actor, NewKey(user=user_id, name=NAME, expires_at=until), purpose="playground"
            )
        await self._keys.change(actor, key.id, KeyChanges(expires_at=until, state="active"))
        return await self._keys.rotate(actor, key.id, LIFE)

    async def end(self, actor: Actor, user_id: str) -> None:
        """With the session."""
        key = await self._of(user_id)
        if key is not None and key.state == "active":
            await self._keys.change(actor, key.id, KeyChanges(state="suspended"))

    async def _of(self, user_id: str) -> Key | None:
        found, _ = await self._keys.page({"user": user_id, "purpose": "playground"}, limit=10)
        return next((key for key in found if key.state != "revoked"), None)
