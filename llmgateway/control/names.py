"""Whether a name is a local account's: the one answer for both doors, where people sign up and where they
come from an identity provider."""

from datetime import timedelta

from llmgateway.control.moments import now_of
from llmgateway.domain.ports import Clock, Documents

CUT_OFF = timedelta(minutes=1)  # an account without a user may be in the making for so long


async def has_account(store: Documents, clock: Clock, name: str) -> bool:
    """An account without a user is what is left of a sign-up that was cut off: it opens nothing, and goes."""
    account = await store.get("accounts", name)
    if account is None:
        return False
    is_account = "password" in account  # else it is the mark of the first one, which is no name and stays
    if not is_account or account["created_at"] > now_of(clock) - CUT_OFF:
        return True
    if await store.get("users", name) is not None:
        return True
    await store.delete("accounts", name)
    return False
