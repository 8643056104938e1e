"""The playground: a chat page whose script calls `/v1` with a key of the person's own, like any program."""

from llmgateway.control.moments import written
from llmgateway.portal.models import for_trying
from llmgateway.portal.visit import Answer, Data, Desk, Page, Visit


async def show(desk: Desk, visit: Visit) -> Answer:
    models = [model.id for model in for_trying(desk, visit.me)]
    wanted = visit.asked("model")
    return Page("playground.html", {"models": models, "wanted": wanted if wanted in models else ""})


async def issue_key(desk: Desk, visit: Visit) -> Answer:
    """For the page's script, which keeps it in its memory only."""
    issued = await desk.playground.issue(visit.actor, visit.me.id)
    return Data({"key": issued.token.reveal(), "expires_at": written(issued.key.expires_at)})
