"""All use cases over one store, put together."""

from typing import Self

from msgspec import Struct

from llmgateway.control.announcements import Announcements
from llmgateway.control.audit import Audit
from llmgateway.control.comebacks import Comebacks
from llmgateway.control.enrol import Enrolment
from llmgateway.control.ground import Configured, Ground
from llmgateway.control.keys import Keys
from llmgateway.control.limits import LimitSets
from llmgateway.control.models import Models
from llmgateway.control.people import People
from llmgateway.control.projects import Projects
from llmgateway.control.reports import Reports
from llmgateway.control.terms import Agreements
from llmgateway.domain.ports import Clock, State, Store


class Control(Struct, frozen=True, kw_only=True):
    """What people and operators do."""

    keys: Keys
    people: People
    enrolment: Enrolment
    models: Models
    limits: LimitSets
    reports: Reports
    audit: Audit
    projects: Projects
    announcements: Announcements
    agreements: Agreements
    comebacks: Comebacks

    @classmethod
    def over(cls, store: Store, state: State, clock: Clock, *, pepper: bytes, configured: Configured) -> Self:
        audit = Audit(store, clock)
        ground = Ground(
            store=store, state=state, clock=clock, audit=audit, configured=configured, pepper=pepper
        )  # fmt: skip
        people, models = People(ground), Models(ground)
        keys = Keys(ground, people, models, pepper=pepper)
        limits = LimitSets(ground, people, keys)
        return cls(
            keys=keys, people=people, models=models, limits=limits,
            reports=Reports(ground, models), audit=audit, enrolment=Enrolment(ground),
            projects=Projects(ground, people, keys, limits),
            announcements=Announcements(ground), agreements=Agreements(ground),
            comebacks=Comebacks.over(ground),
        )  # fmt: skip
