"""Operators' places as one table. Whoever is none is told that they are not there."""

from collections.abc import Sequence

from llmgateway.portal.door import Place
from llmgateway.portal.operators import (
    announcements,
    audit,
    keys,
    limits,
    live,
    models,
    people,
    person,
    projects,
    usage,
)
from llmgateway.portal.page import Link
from llmgateway.portal.visit import Show
from llmgateway.portal.words import later

ROOT = "/portal/operators"


def _page(name: str, path: str, get: Show, post: Show | None = None) -> Place:
    """Somewhere to go by its name alone."""
    return Place(name=name, path=ROOT + path, get=get, post=post, needs="operator", is_destination=True)


def _one(name: str, path: str, get: Show | None = None, post: Show | None = None) -> Place:
    return Place(name=name, path=ROOT + path, get=get, post=post, needs="operator")


def _admin(name: str, path: str, get: Show | None = None, post: Show | None = None) -> Place:
    """What says who operates, which models there are, and what lets somebody call as somebody else."""
    return Place(name=name, path=ROOT + path, get=get, post=post, needs="admin")


PLACES: Sequence[Place] = (
    _page("op-people", "/people", people.show, people.create),
    _page("op-person-new", "/people/new", people.show_new),
    _one("op-person", "/person/{id:path}", person.show, person.change),
    _admin("op-person-roles", "/person-roles/{id:path}", post=person.change_roles),
    _one("op-person-state", "/person-state/{id:path}", person.ask_state, person.change_state),
    _admin("op-person-forget", "/person-forget/{id:path}", person.ask_forget, person.forget),
    _one("op-person-sessions", "/person-sessions/{id:path}", post=person.end_sessions),
    _admin("op-person-password", "/person-password/{id:path}", post=person.set_password),
    _admin("op-person-key", "/person-key/{id:path}", post=person.create_key),
    _page("op-projects", "/projects", projects.show, projects.create),
    _page("op-project-new", "/projects/new", projects.show_new),
    _one("op-project", "/project/{id:path}", projects.show_one, projects.change),
    _one("op-project-member", "/project-member/{id:path}", post=projects.add_member),
    _one("op-project-no-member", "/project-no-member/{id:path}", post=projects.remove_member),
    _one("op-project-key", "/project-key/{id:path}", post=projects.create_key),
    _one("op-project-end", "/project-end/{id:path}", projects.ask_end, projects.end),
    _one("op-project-delete", "/project-delete/{id:path}", post=projects.delete),
    _page("op-keys", "/keys", keys.show),
    _one("op-key", "/keys/{id}", keys.show_one, keys.change),
    _one("op-key-state", "/keys/{id}/state", keys.ask_state, keys.change_state),
    _one("op-key-rotate", "/keys/{id}/rotate", post=keys.rotate),
    _page("op-models", "/models", models.show),
    _admin("op-model-new", "/models/new", models.show_new, models.create),
    _one("op-model", "/model/{id:path}", models.show_one),
    _admin("op-model-change", "/model-change/{id:path}", post=models.change),
    _admin("op-model-delete", "/model-delete/{id:path}", models.ask_delete, models.delete),
    _page("op-limits", "/limits", limits.show),
    _one("op-limit-find", "/limits/find", limits.find),
    _one("op-limit", "/limits/{scope}/{id:path}", limits.show_one, limits.change),
    _one("op-limit-reset", "/limit-reset/{scope}/{id:path}", post=limits.reset),
    _page("op-usage", "/usage", usage.show),
    _one("op-usage-csv", "/usage.csv", usage.as_csv),
    _one("op-usage-json", "/usage.json", usage.as_json),
    _page("op-requests", "/requests", usage.show_requests),
    _page("op-live", "/live", live.show),
    _one("op-live-events", "/live/events", live.follow),
    _page("op-audit", "/audit", audit.show, audit.verify),
    _one("op-audit-csv", "/audit.csv", audit.as_csv),
    _one("op-audit-json", "/audit.json", audit.as_json),
    _page("op-announcements", "/announcements", announcements.show, announcements.create),
    _one("op-announcement", "/announcements/{id}", announcements.show_one, announcements.change),
    _one(
        "op-announcement-delete", "/announcements/{id}/delete", announcements.ask_delete, announcements.delete
    ),
    _one("op-announcement-end", "/announcements/{id}/end", post=announcements.end),
    _admin("op-config", "/config", models.show_config),
)


def _link(name: str, path: str, title: str, icon: str) -> Link:
    return Link(name, ROOT + path, title, icon, is_for_operators=True)


LINKS: Sequence[Link] = (
    _link("op-live", "/live", later("Live"), "pulse"),
    _link("op-people", "/people", later("People"), "people"),
    _link("op-projects", "/projects", later("Projects"), "folder"),
    _link("op-keys", "/keys", later("All keys"), "key"),
    _link("op-models", "/models", later("Model servers"), "server"),
    _link("op-limits", "/limits", later("Limits"), "gauge"),
    _link("op-usage", "/usage", later("All usage"), "chart"),
    _link("op-audit", "/audit", later("Audit log"), "list"),
    _link("op-announcements", "/announcements", later("Announcements"), "horn"),
)
