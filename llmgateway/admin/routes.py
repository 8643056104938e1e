"""The operators' API as one table, from which its routes and its part of the OpenAPI document are made."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from llmgateway.admin import announcements as told, operations as do, projects as joint
from llmgateway.admin.asked import asked_by_body, asked_by_query
from llmgateway.admin.gate import Gate
from llmgateway.admin.operations import Call, Desk, Nothing, Run
from llmgateway.admin.stream import StreamAsk, StreamEvent, stream
from llmgateway.control.announcements import AnnouncementChanges, AnnouncementView, NewAnnouncement
from llmgateway.control.audit import AuditLine
from llmgateway.control.keys import KeyChanges, KeyView, NewKey, UsedKeyView
from llmgateway.control.models import ModelEntry
from llmgateway.control.people import NewUser, UserChanges, UserView
from llmgateway.control.plain import plain
from llmgateway.control.projects import NewProject, NewServiceKey, ProjectChanges, ProjectView
from llmgateway.control.replicas import ReplicaView
from llmgateway.control.reports import RecordsAsk, UsageAsk, UsageView
from llmgateway.domain.errors import NotFound
from llmgateway.domain.limits import Limits

WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


class Operation(Struct, frozen=True, kw_only=True):
    """`asks` is read from the body, or from the query where the method has no body. `gives` is what is
    answered, or what a list is of."""

    method: str
    path: str
    summary: str
    run: Run
    gives: Any
    asks: Any = Nothing
    status: int = 200
    is_list: bool = False
    media: str = "application/json"

    @property
    def has_body(self) -> bool:
        return self.method in WITH_BODY


def _list(path: str, summary: str, run: Run, asks: Any, gives: Any) -> Operation:
    return Operation(method="GET", path=path, summary=summary, run=run, asks=asks, gives=gives, is_list=True)


def _one(method: str, path: str, summary: str, run: Run, gives: Any, *, asks: Any = Nothing) -> Operation:
    return Operation(method=method, path=path, summary=summary, run=run, asks=asks, gives=gives)


def _new(path: str, summary: str, run: Run, asks: Any, gives: Any) -> Operation:
    return Operation(method="POST", path=path, summary=summary, run=run, asks=asks, gives=gives, status=201)


KEYS, KEY = "/admin/keys", "/admin/keys/{id}"
USERS, USER = "/admin/users", "/admin/users/{id:path}"
MODELS, MODEL = "/admin/models", "/admin/models/{id:path}"
PROJECTS, PROJECT = "/admin/projects", "/admin/projects/{id:path}"
MEMBERS, PROJECT_KEYS = f"{PROJECT}/members", f"{PROJECT}/keys"
ANNOUNCEMENTS, ANNOUNCEMENT = "/admin/announcements", "/admin/announcements/{id}"
LIMITS, DEFAULT = "/admin/limits/{scope}/{id:path}", "/admin/limits/{scope}"
ROUTES: Sequence[Operation] = (
    _new(KEYS, "Create a key; it is shown this once", do.create_key, NewKey, do.IssuedKey),
    _list(KEYS, "All keys, by id", do.list_keys, do.KeysAsk, KeyView),
    _one("GET", KEY, "A key, with when it was last used", do.get_key, UsedKeyView),
    _one("PATCH", KEY, "Change, suspend or resume a key", do.change_key, KeyView, asks=KeyChanges),
    _one("DELETE", KEY, "Revoke a key, for good", do.revoke_key, KeyView),
    _one("POST", f"{KEY}/rotate", "A new secret for a key; the old one stays valid for a while",
         do.rotate_key, do.IssuedKey, asks=do.Rotation),
    _new(USERS, "Create a user", do.create_user, NewUser, UserView),
    _list(USERS, "All users, by id", do.list_users, do.UsersAsk, UserView),
    _one("POST", f"{USER}/forget", "End an account for good; its use stays under a pseudonym",
         do.forget_user, do.Forgotten),
    _one("GET", USER, "A user", do.get_user, UserView),
    _one("PATCH", USER, "Change, suspend or resume a user", do.change_user, UserView, asks=UserChanges),
    _new(MODELS, "Add a model to the catalogue", do.create_model, ModelEntry, ModelEntry),
    _list(MODELS, "All models, by id, with where each comes from", do.list_models, do.PageAsk, ModelEntry),
    _one("GET", MODEL, "A model", do.get_model, ModelEntry),
    _one("PATCH", MODEL, "Change a model that operators added", do.change_model, ModelEntry, asks=ModelEntry),
    _one("DELETE", MODEL, "Take a model out that operators added", do.delete_model, do.Deleted),
    _new(PROJECTS, "Create a project", joint.create_project, NewProject, ProjectView),
    _list(PROJECTS, "All projects, by id", joint.list_projects, do.PageAsk, ProjectView),
    _one("POST", f"{PROJECT}/end", "End a project now: all its keys are refused",
         joint.end_project, ProjectView),
    _list(MEMBERS, "The members of a project, by id", joint.list_members, do.PageAsk, UserView),
    _one("POST", MEMBERS, "Make a user a member; from another project they are taken away",
         joint.add_member, UserView, asks=joint.Member),
    _one("DELETE", MEMBERS, "Take a member out of a project",
         joint.remove_member, UserView, asks=joint.Member),
    _list(PROJECT_KEYS, "All keys of a project, its own and its members', by id",
          joint.list_project_keys, joint.ProjectKeysAsk, KeyView),
    _new(PROJECT_KEYS, "Create a key that belongs to the project and to no person; it is shown this once",
         joint.create_project_key, NewServiceKey, do.IssuedKey),
    _one("GET", PROJECT, "A project, with the limits that are its budget", joint.get_project, ProjectView),
    _one("PATCH", PROJECT, "Change a project, whoever answers for it, its end, or its budget",
         joint.change_project, ProjectView, asks=ProjectChanges),
    _one("DELETE", PROJECT, "Delete a project that has no members and no keys",
         joint.delete_project, do.Deleted),
    _new(ANNOUNCEMENTS, "Tell something to all who use the portal",
         told.create_announcement, NewAnnouncement, AnnouncementView),
    _list(ANNOUNCEMENTS, "All announcements, newest first",
          told.list_announcements, do.PageAsk, AnnouncementView),
    _one("GET", ANNOUNCEMENT, "An announcement", told.get_announcement, AnnouncementView),
    _one("PATCH", ANNOUNCEMENT, "Change an announcement",
         told.change_announcement, AnnouncementView, asks=AnnouncementChanges),
    _one("DELETE", ANNOUNCEMENT, "Delete an announcement", told.delete_announcement, do.Deleted),
    _one("POST", f"{ANNOUNCEMENT}/end", "Show an announcement no more from now on",
         told.end_announcement, AnnouncementView),
    _list("/admin/limits", "All limits that are set, by subject", do.list_limits, do.PageAsk, do.LimitsView),
    _one("GET", LIMITS, "The limits of a user, project, key or model, and how they stand",
         do.get_limits, do.StandingLimits),
    _one("PUT", LIMITS, "Put limits in the place of all that were set",
         do.put_limits, do.StandingLimits, asks=Limits),
    _one("DELETE", LIMITS, "Back to what the settings say", do.delete_limits, do.StandingLimits),
    _one("GET", DEFAULT, "The limits of every user who has no others", do.get_limits, do.StandingLimits),
    _one("PUT", DEFAULT, "Put limits for every user who has no others",
         do.put_limits, do.StandingLimits, asks=Limits),
    _one("DELETE", DEFAULT, "Back to the settings' default", do.delete_limits, do.StandingLimits),
    _list("/admin/usage", "Sums of the ledger, as JSON or CSV", do.usage, UsageAsk, UsageView),
    _list("/admin/requests", "Records of the ledger, newest first", do.requests, RecordsAsk, dict[str, Any]),
    _list("/admin/audit", "The audit log, newest first", do.audit_lines, do.AuditAsk, AuditLine),
    _list("/admin/providers", "All replicas, as one worker found them",
          do.providers, do.PageAsk, ReplicaView),
    Operation(method="GET", path="/admin/stream", run=stream, asks=StreamAsk, gives=StreamEvent,
              summary="What happens now: open calls, calls that ended, lines of the audit log",
              media="text/event-stream"),
    _one("GET", "/admin/config", "All settings in force, secrets masked", do.config, dict[str, Any]),
)  # fmt: skip


class Door:
    """An ASGI application for one path: nothing of a request is looked at before the gate has let it in."""

    def __init__(self, gate: Gate, desk: Desk, operations: Mapping[str, Operation]) -> None:
        self._gate = gate
        self._desk = desk
        self._operations = operations

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        actor = await self._gate(request)
        if not self._operations:
            raise NotFound("There is nothing at this address.")
        operation = self._operations.get("GET" if request.method == "HEAD" else request.method)
        if operation is None:
            allowed = ", ".join(sorted(self._operations))
            raise HTTPException(405, f"This address takes {allowed}.", headers={"Allow": allowed})
        read = asked_by_body(operation.asks, request) if operation.has_body else None
        asked = asked_by_query(operation.asks, request) if read is None else await read
        names = request.path_params
        call = Call(
            actor=actor, id=names.get("id", ""), scope=names.get("scope", ""),
            still=lambda: self._gate(request), last_event_id=request.headers.get("last-event-id"),
        )  # fmt: skip
        result = await operation.run(self._desk, call, asked)
        response = result if isinstance(result, Response) else _json(result, operation.status)
        response.headers["cache-control"] = "no-store"
        await response(scope, receive, send)


def routes(desk: Desk, gate: Gate) -> list[Route]:
    """Every path once for all methods, and one for all other paths: whoever is not let in cannot tell which
    there are. Expected around them: request ids in the request's state, and errors made into answers."""
    paths: dict[str, dict[str, Operation]] = {}
    for operation in ROUTES:
        paths.setdefault(operation.path, {})[operation.method] = operation
    doors = {path: Door(gate, desk, operations) for path, operations in paths.items()}
    nowhere = Door(gate, desk, {})
    return [Route(path, door) for path, door in doors.items()] + [
        Route(path, nowhere) for path in ("/admin", "/admin/{rest:path}")
    ]


def _json(value: object, status: int) -> Response:
    return Response(msgspec.json.encode(value, enc_hook=plain), status, media_type="application/json")
