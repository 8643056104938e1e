"""What every use case stands on: the stores, the clock, the audit log, and the configuration in force."""

from collections.abc import Callable

from msgspec import Struct

from llmgateway.control.audit import Audit
from llmgateway.domain.book import LimitBook
from llmgateway.domain.catalog import Model
from llmgateway.domain.entries import Defaults
from llmgateway.domain.policy import Policy
from llmgateway.domain.ports import Clock, State, Store
from llmgateway.domain.terms import Terms

WITHOUT_LIMITS = LimitBook()
WITHOUT_RULES = Policy()


class Configuration(Struct, frozen=True, kw_only=True):
    """`base_models` and `limits` are the settings' and the built-in ones, `defaults` what operators' entries
    leave out."""

    base_models: tuple[Model, ...] = ()
    defaults: Defaults = Defaults(source="admin")
    limits: LimitBook = WITHOUT_LIMITS
    policy: Policy = WITHOUT_RULES
    time_zone: str = "UTC"
    terms: Terms | None = None


Configured = Callable[[], Configuration]


class Ground(Struct, frozen=True, kw_only=True):
    """`configured` is asked at every call, since the configuration file may change. `pepper` keys what is
    kept of ended accounts."""

    store: Store
    state: State
    clock: Clock
    audit: Audit
    configured: Configured
    pepper: bytes | None = None
