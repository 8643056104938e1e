"""The book of limits: what each scope of a call may use, looked up by key and model.

A user's own limits go before the default's, field by field; a limit that neither names is none. Limits of
keys and users come with the principal, those of projects, models and everybody are in the book.
"""

from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct, structs

from llmgateway.domain.catalog import Model
from llmgateway.domain.fair import COMPLETION, PROMPT
from llmgateway.domain.keys import Principal
from llmgateway.domain.limits import Limits, Scope, ScopeKind

MOST_KNOWN = 50_000
NO_LIMITS = Limits()
NOBODY: Mapping[str, Limits] = MappingProxyType({})


class Weights(Struct, frozen=True):
    """The share of a full model that users of a project or with a role have against others, who have 1; and
    what a token of a prompt and one of a completion count."""

    projects: Mapping[str, float] = MappingProxyType({})
    roles: Mapping[str, float] = MappingProxyType({})
    prompt: float = PROMPT
    completion: float = COMPLETION


EVEN = Weights()


class LimitBook:
    """Immutable but for what it remembers of its own answers; changed limits make a new one."""

    __slots__ = ("_known", "default", "models", "projects", "users", "weights")

    def __init__(
        self,
        *,
        default: Limits = NO_LIMITS,
        users: Mapping[str, Limits] = NOBODY,
        projects: Mapping[str, Limits] = NOBODY,
        models: Mapping[str, Limits] = NOBODY,
        weights: Weights = EVEN,
    ) -> None:
        self.default = default
        self.users = users
        self.projects = projects
        self.models = models
        self.weights = weights
        self._known: dict[tuple[str, str], tuple[Principal, tuple[Scope, ...]]] = {}

    def scopes_for(self, principal: Principal, model: Model) -> tuple[Scope, ...]:
        """The scopes that limit this call, in the order in which they refuse."""
        known = self._known.get((principal.key_id, model.id))
        if known is not None and known[0] is principal:  # its limits change with another principal
            return known[1]
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        found = self._found(principal, model.id)
        self._known[principal.key_id, model.id] = (principal, found)
        return found

    def user_limits(self, user: str, own: Limits) -> Limits:
        """What a user may use: an operator's word, else the settings', else what everybody may."""
        return merged(own if own != NO_LIMITS else self.users.get(user, NO_LIMITS), self.default)

    def weight_of(self, principal: Principal) -> float:
        """The project's if it has one, else the greatest of the user's roles'."""
        if principal.project is not None and principal.project in self.weights.projects:
            return self.weights.projects[principal.project]
        roles = self.weights.roles
        return max((roles[role] for role in principal.roles if role in roles), default=1.0)

    def counted(self, prompt: int) -> int:
        """How many tokens the queue of a full model takes a prompt for. Counters are only ever compared, so
        other weights of tokens are the usual ones with prompts longer or shorter by the same measure: all
        workers' queues go on as they are when weights change."""
        weights = self.weights
        return round(prompt * (weights.prompt / PROMPT) / (weights.completion / COMPLETION))

    def _found(self, principal: Principal, model: str) -> tuple[Scope, ...]:
        kinds: list[tuple[ScopeKind, str, Limits]] = [
            ("key", principal.key_id, principal.key_limits),
            ("user", principal.user, self.user_limits(principal.user, principal.user_limits)),
            ("model", model, self.models.get(model, NO_LIMITS)),
        ]
        if principal.project is not None:
            kinds.append(("project", principal.project, self.projects.get(principal.project, NO_LIMITS)))
        return tuple(Scope(kind, id, limits) for kind, id, limits in kinds if limits != NO_LIMITS)


def merged(own: Limits, default: Limits) -> Limits:
    """Field by field: `own` where it says something."""
    said = {name: value for name, value in structs.asdict(own).items() if value is not None}
    return structs.replace(default, **said)
