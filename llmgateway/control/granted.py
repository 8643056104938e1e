"""What a policy granted, as fields of a user's document: the one place that knows which fields those are."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from llmgateway.domain.policy import Grant, limits_of, models_of, project_of, roles_of
from llmgateway.domain.ports import Document

GRANTED: Final = ("roles", "project", "limits", "models")
UNGRANTED: Final[Mapping[str, Any]] = {"roles": ["user"], "project": None, "limits": {}, "models": None}
"""Of a user whom no policy concerns."""


def granted_fields(grants: Sequence[Grant]) -> Document:
    """As they are stored."""
    models = models_of(grants)
    return {
        "roles": list(roles_of(grants)),
        "project": project_of(grants),
        "limits": msgspec.to_builtins(limits_of(grants)),
        "models": None if models is None else list(models),
    }


def grants_in(grants: Sequence[Grant]) -> list[dict[str, Any]]:
    """As they are stored."""
    return [msgspec.to_builtins(grant) for grant in grants]
