"""What operators may do to whom: they do the daily work for people, and change no operator, not even
themselves; administrators do."""

from llmgateway.control.limits import Subject
from llmgateway.domain.errors import NotAllowed, NotFound
from llmgateway.domain.people import User
from llmgateway.portal.visit import Desk, Visit
from llmgateway.portal.words import later

ONLY_ADMIN = later("Only an administrator may change the account of an operator or administrator.")


def may_change(visit: Visit, user: User) -> bool:
    return user.state != "gone" and (visit.me.is_admin or not user.is_operator)


async def ensure_may_change(desk: Desk, visit: Visit, user_id: str) -> None:
    """Raises `NotAllowed`. Somebody who is no user yet is nobody's operator."""
    if visit.me.is_admin:
        return
    try:
        user = await desk.control.people.get(user_id)
    except NotFound:
        return
    if not may_change(visit, user):
        raise NotAllowed(ONLY_ADMIN)


async def ensure_may_limit(desk: Desk, visit: Visit, subject: Subject) -> None:
    """A limit of an operator, or of an operator's key, is part of the account."""
    if subject.kind == "user":
        await ensure_may_change(desk, visit, subject.id)
    elif subject.kind == "key":
        await ensure_may_change(desk, visit, (await desk.control.keys.get(subject.id)).user)
