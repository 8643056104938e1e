"""The playground: a chat page whose script calls `/v1` with a key of the person's own, like any program."""

from llmgateway.control.moments import written
from llmgateway.portal.models import condition_of
from llmgateway.portal.visit import Answer, Data, Desk, Page, Visit


async def show(desk: Desk, visit: Visit) -> Answer:
    """Those that answer come first."""
    visible = desk.visible_to(visit.me)
    models = [model.id for model in sorted(visible, key=lambda model: condition_of(desk, model) == "down")]
    wanted = visit.asked("model")
    return Page("playground.html", {"models": models, "wanted": wanted if wanted in models else ""})


async def issue_key(desk: Desk, visit: Visit) -> Answer:
    """For the page's script, which keeps it in its memory only."""
    issued = await desk.playground.issue(visit.actor, visit.me.id)
    return Data({"key": issued.token.reveal(), "expires_at": written(issued.key.expires_at)})
