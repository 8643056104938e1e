"""Signing in and out over SAML, from the browser's leaving to its coming back.

A provider's form comes from another site, so the browser brings no cookie of ours with it. What the form
proves is put on the shelf under a word, the browser is sent on with the word, and on that second step, which
is a step of our own, it shows that it is the one that left: a stolen or an attacker's own response opens no
session. Each request is answered once and each assertion used once, by all replicas together.
"""

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

import msgspec
from msgspec import Struct

from llmgateway.control.accounts import line_of
from llmgateway.control.audit import Actor, Audit
from llmgateway.domain.errors import GatewayError, NotAllowed, NotAuthenticated, NotFound, OverLimit
from llmgateway.domain.identity import Identity
from llmgateway.domain.people import User
from llmgateway.domain.ports import Clock, Shelf
from llmgateway.domain.saml import NAME_ID, Saml
from llmgateway.portal.cookie import cookie_in
from llmgateway.portal.saml import Idp, ServiceProvider, SignOut
from llmgateway.portal.saml_guard import (
    ASSERTION,
    PERSISTENT,
    Proved,
    Refused,
    decoded,
    guarded_response,
    inflated,
    parsed,
)
from llmgateway.portal.saml_idps import Idps
from llmgateway.portal.sessions import LONGEST, Session, Sessions
from llmgateway.portal.visit import Answer, Choice, Elsewhere, Redirect, Visit
from llmgateway.portal.words import later

log = logging.getLogger(__name__)

ASKED, USED, PROVED = "saml-asked", "saml-used", "saml-proved"
NAMED, LEAVING = "saml-named", "saml-leaving"
ASKED_SECONDS, STEP_SECONDS = 900.0, 120.0
ASKING, MOST_ASKED = "saml-asking", 3000  # from an address, which may be a whole campus's
WORD = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)  # 256 bits, as ours are
MAIL_FORMAT = "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress"
REFUSED = later(
    "Your organisation's answer could not be accepted. Please try to sign in again; if it happens once more, "
    "tell the operators the request id below."
)
OTHER_BROWSER = later("This sign-in was begun in another browser, or too long ago. Please sign in again.")
REFUSALS = "saml-refusals"
MOST_NOTED, NOTED_SECONDS = 20, 900.0
ISSUER = f"{{{ASSERTION}}}Issuer"

Welcome = Callable[[Actor, Identity], Awaitable[User]]
"""The policy: the user that somebody is here, made or brought up to date. Raises `NotAllowed`."""


class Asked(Struct, frozen=True):
    """A request that was sent: to which provider, from which browser, and where the visitor wants to go."""

    idp: str
    browser: str
    following: str


class Arriving(Struct, frozen=True):
    """What was proved of somebody who is on the second step. `browser` is empty where nobody was asked."""

    identity: Identity
    details: dict[str, str]
    browser: str
    following: str


class Means(Struct, frozen=True, kw_only=True):
    """What it works with. `cookie` is the name of that by which a browser shows that it is the one that
    left."""

    shelf: Shelf
    sessions: Sessions
    welcome: Welcome
    audit: Audit
    clock: Clock
    cookie: str


class SamlFederation:
    """One for all identity providers."""

    def __init__(self, saml: Saml, sp: ServiceProvider, idps: Idps, means: Means) -> None:
        self._saml = saml
        self._sp = sp
        self._idps = idps
        self._shelf = means.shelf
        self._sessions = means.sessions
        self._welcome = means.welcome
        self._audit = means.audit
        self._clock = means.clock
        self._cookie = means.cookie
        self._metadata = sp.metadata()  # signed once: anybody may ask for it

    def choices(self) -> Sequence[Choice]:
        return [Choice(idp.provider.id, idp.provider.name) for idp in self._idps.all()]

    def metadata(self) -> bytes:
        return self._metadata

    def origins(self) -> Sequence[str]:
        return sorted({origin for idp in self._idps.all() for origin in idp.origins})

    # --- signing in ---

    async def ask(self, visit: Visit, id: str) -> Answer:
        idp = self._idps.named(id)
        if idp is None:
            raise NotFound(later("There is no such organisation here."))
        line = line_of(visit.address)
        if await self._shelf.count(ASKING, line, ASKED_SECONDS) > MOST_ASKED:
            raise OverLimit(later("Too many tries; please wait a quarter of an hour."), retry_after=60)
        browser = self._remembered(visit) or secrets.token_urlsafe(32)
        asked = await asyncio.to_thread(self._sp.ask, idp)  # to sign takes milliseconds
        kept = Asked(id, _hash_of(browser), visit.asked("next"))
        await self._shelf.put(ASKED, asked.id, msgspec.msgpack.encode(kept), ASKED_SECONDS)
        return Elsewhere(asked.url, remembers=browser)

    def _remembered(self, visit: Visit) -> str | None:
        """The word of a way that this browser is on already, in another tab: both shall arrive."""
        word = cookie_in(visit.request, self._cookie) or ""
        return word if WORD.fullmatch(word) else None

    async def receive(self, visit: Visit) -> Answer:
        try:
            idp, asked, proved = await self._proved(visit.form.raw("SAMLResponse"))
            identity = self._identity_of(idp, proved)
        except Refused as refused:
            await self._note_refusal(visit)
            fields = {"request_id": visit.actor.request_id, "reason": str(refused)}
            log.warning("a sign-in over SAML was refused", extra={"fields": fields})
            raise NotAuthenticated(REFUSED) from None
        details = {"provider": idp.provider.id, "name": proved.name_id, "format": proved.name_id_format,
                   "session": proved.session_index}  # fmt: skip
        arriving = Arriving(identity, details, asked.browser, asked.following)
        word = secrets.token_urlsafe(32)
        await self._shelf.put(PROVED, _hash_of(word), msgspec.msgpack.encode(arriving), STEP_SECONDS)
        return Redirect("saml-arrive", {"word": word})

    async def arrive(self, visit: Visit) -> Answer:
        stored = await self._shelf.take(PROVED, _hash_of(visit.asked("word")))
        if stored is None:
            raise NotAllowed(OTHER_BROWSER)
        arriving = msgspec.msgpack.decode(stored, type=Arriving)
        shown = _hash_of(cookie_in(visit.request, self._cookie) or "")
        if arriving.browser and not hmac.compare_digest(arriving.browser, shown):
            raise NotAllowed(OTHER_BROWSER)
        actor = Actor(f"user {arriving.identity.subject}", visit.actor.source, visit.actor.request_id)
        user = await self._welcome(actor, arriving.identity)
        name = _name_of(arriving.details["provider"], arriving.details["name"])
        await self._shelf.put(NAMED, name, user.id.encode(), LONGEST.total_seconds(), owner=user.id)
        return Redirect("overview", wish=arriving.following, begins_for=user.id, how="saml",
                        details=arriving.details)  # fmt: skip

    async def _proved(self, text: str) -> tuple[Idp, Asked, Proved]:
        document, request, issuer = await asyncio.to_thread(_opened, text)
        asked = await self._asked_by(request)
        idp = self._idps.named(asked.idp) if asked.idp else self._idps.issuing(issuer)
        if idp is None:
            raise Refused("no provider that is known")
        proved = await self._prove(idp, document, request)
        if request is not None and await self._shelf.take(ASKED, request) is None:
            raise Refused("a request that was answered before")
        await self._use(idp, proved)
        return idp, asked, proved

    async def _asked_by(self, request: str | None) -> Asked:
        if request is None:
            if not self._saml.allows_unsolicited:
                raise Refused("nobody asked for this response")
            return Asked("", "", "")
        stored = await self._shelf.get(ASKED, request)
        if stored is None:
            raise Refused("a request that is not known, or not any more")
        return msgspec.msgpack.decode(stored, type=Asked)

    async def _prove(self, idp: Idp, document: bytes, request: str | None) -> Proved:
        """With the certificates that are known, and with those that the metadata says now."""
        now = self._clock.now()
        try:
            return await asyncio.to_thread(self._sp.prove, idp, document, request, now)
        except Refused:
            changed = await self._idps.changed(idp)
            if changed is None:
                raise
        return await asyncio.to_thread(self._sp.prove, changed, document, request, now)

    async def _use(self, idp: Idp, proved: Proved) -> None:
        life = max(1.0, (proved.until - self._clock.now()).total_seconds())
        if not await self._shelf.add(USED, _name_of(idp.entity_id, proved.id), b"", life):
            raise Refused("an assertion that was used before")

    def _identity_of(self, idp: Idp, proved: Proved) -> Identity:
        said = dict(proved.attributes)
        if proved.name_id_format == PERSISTENT:
            said[NAME_ID] = (proved.name_id,)
        chosen = next((name for name in self._saml.subject if name in said), None)
        subjects = said[chosen] if chosen else ()
        if len(subjects) != 1 or not subjects[0]:
            raise Refused("no subject, or several" if chosen else "none of the attributes that are a subject")
        (subject,) = subjects
        if not subject.isprintable() or "\\" in subject or len(subject) > 128 or subject.count("@") > 1:
            raise Refused("a subject that cannot be one")
        scopes = idp.provider.scopes
        if scopes and subject.rpartition("@")[2].lower() not in {scope.lower() for scope in scopes}:
            raise Refused("a subject of another organisation")
        return Identity(
            provider=idp.entity_id, subject=subject, attributes=proved.attributes,
            name=_first(said, self._saml.names), email=_mail_in(said, proved, self._saml.mails),
        )  # fmt: skip

    # --- signing out ---

    async def leave(self, visit: Visit) -> str | None:
        session = visit.session
        idp = None if session is None else self._idps.named(session.details.get("provider", ""))
        if session is None or session.how != "saml" or idp is None or idp.sign_out_url is None:
            return None
        word = secrets.token_urlsafe(32)
        kept = msgspec.msgpack.encode(session.details)
        await self._shelf.put(LEAVING, _hash_of(word), kept, STEP_SECONDS)
        return word

    async def go(self, visit: Visit) -> Answer:
        stored = await self._shelf.take(LEAVING, _hash_of(visit.asked("word")))
        details = {} if stored is None else msgspec.msgpack.decode(stored, type=dict[str, str])
        idp = self._idps.named(details.get("provider", ""))
        if idp is None:
            return Redirect("sign-in", said="signed-out")
        asked = self._sp.ask_out(idp, details["name"], details["format"], details["session"])
        return Redirect("sign-in", said="signed-out") if asked is None else Elsewhere(asked.url)

    async def hear(self, visit: Visit) -> Answer:
        """An answer opens and ends nothing, our session has ended before: it is not even looked into."""
        query = visit.request.url.query
        fields = {name: visit.asked(name) for name in ("SAMLRequest", "RelayState", "SigAlg", "Signature")
                  if name in visit.request.query_params}  # fmt: skip
        if "SAMLRequest" not in fields and not visit.form.has("SAMLRequest"):
            return Redirect("sign-in", said="signed-out")
        try:
            idp, asked = await self._told(fields, query)
        except Refused as refused:
            fields = {"request_id": str(visit.actor.request_id), "reason": str(refused)}
            log.warning("a sign-out over SAML was refused", extra={"fields": fields})
            raise NotAllowed(REFUSED) from None
        await self._end(visit, idp, asked)
        return Elsewhere(self._sp.answer_out(idp, asked, fields.get("RelayState")))

    async def _told(self, fields: Mapping[str, str], query: str) -> tuple[Idp, SignOut]:
        if "SAMLRequest" not in fields:
            raise Refused("a sign-out by a form, which our metadata does not offer")
        root = await asyncio.to_thread(lambda: parsed(inflated(fields["SAMLRequest"])))
        idp = self._idps.issuing(root.findtext(ISSUER, "").strip())
        if idp is None or idp.sign_out_url is None:
            raise Refused("no provider that is known")
        now = self._clock.now()
        asked = await asyncio.to_thread(self._sp.told_out, idp, fields, query, now)
        return idp, asked

    async def _end(self, visit: Visit, idp: Idp, asked: SignOut) -> None:
        stored = await self._shelf.get(NAMED, _name_of(idp.provider.id, asked.name_id))
        if stored is None:
            return
        user = stored.decode()
        for session in await self._sessions.of_user(user):
            if _is_meant(session, idp, asked):
                await self._sessions.end_one(user, session.handle)
                await self._note(visit, "sessions.end", user, "ok")

    async def _note_refusal(self, visit: Visit) -> None:
        """Anybody can send anything here, so of one address only so much is written down."""
        with suppress(GatewayError):
            if await self._shelf.count(REFUSALS, visit.address, NOTED_SECONDS) <= MOST_NOTED:
                await self._note(visit, "sessions.begin", "nobody", "refused")

    async def _note(self, visit: Visit, action: str, target: str, result: str) -> None:
        try:
            await self._audit.write(visit.actor, action, target, result=result, details={"how": "saml"})
        except GatewayError as error:
            log.warning("no audit line for a sign-in", extra={"fields": {"error": error.code}})


def _opened(text: str) -> tuple[bytes, str | None, str]:
    """A response's bytes, the request that it answers, and who says that it is theirs."""
    document = decoded(text)
    root = guarded_response(document)
    return document, root.get("InResponseTo"), root.findtext(ISSUER, "").strip()


def _is_meant(session: Session, idp: Idp, asked: SignOut) -> bool:
    details = session.details
    return (
        session.how == "saml" and details.get("provider") == idp.provider.id
        and details.get("name") == asked.name_id
        and (not asked.sessions or details.get("session") in asked.sessions)
    )  # fmt: skip


def _first(said: Mapping[str, Sequence[str]], names: Sequence[str]) -> str | None:
    return next((said[name][0] for name in names if said.get(name)), None)


def _mail_in(said: Mapping[str, Sequence[str]], proved: Proved, names: Sequence[str]) -> str | None:
    mail = _first(said, names)
    if mail is None and proved.name_id_format == MAIL_FORMAT:
        mail = proved.name_id
    return mail if mail is not None and mail.count("@") == 1 and len(mail) <= 254 else None


def _name_of(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _hash_of(word: str) -> str:
    return hashlib.sha256(word.encode()).hexdigest()
