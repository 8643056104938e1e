"""How limits stand: of everything that limits a person, or not to be told."""

from llmgateway.control.keys import NewKey
from llmgateway.control.limits import Subject
from llmgateway.control.people import UserChanges
from llmgateway.domain.limits import Limits
from llmgateway.portal.standings import of_person, standings_of
from tests.control.desk import ANN
from tests.portal.house import Browser, Portal

FEW = Limits(tokens_per_day=5)


async def test_a_persons_own_their_projects_their_keys_and_all_models(alice: Browser, portal: Portal) -> None:
    control = portal.desk.control
    user = await control.people.change(ANN, "alice", UserChanges(project="thesis", limits=FEW))
    key = (await control.keys.create(ANN, NewKey(user="alice", name="k", limits=FEW))).key
    for subject in (Subject("project", "thesis"), Subject("model", "org/embed"), Subject("project", "other")):
        await control.limits.put(ANN, subject, FEW)
    assert await of_person(portal.portal_desk(), user, [key]) == []
    assert [(scope.kind, scope.id) for scope in portal.asked_scopes] == [
        ("user", "alice"), ("project", "thesis"), ("key", key.id), ("model", "org/embed")]  # fmt: skip
    portal.limits = None
    assert await standings_of(portal.portal_desk(), ()) is None
