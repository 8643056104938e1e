"""Local accounts: a name and a password, for gateways without an identity provider.

Signing in tells nobody which names there are: a wrong name costs the same time and gets the same answer as a
wrong password. Tries are counted before a password is looked at, so many at once are no more than one by one.
"""

import asyncio
import contextlib
import hmac
import logging
import re
from collections.abc import Callable, Mapping
from ipaddress import IPv6Address, ip_address, ip_network
from types import MappingProxyType
from typing import TypeVar

import msgspec
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from msgspec import UNSET, Struct, structs

from llmgateway.control.audit import Actor
from llmgateway.control.changes import each, need
from llmgateway.control.ground import Ground
from llmgateway.control.moments import now_of
from llmgateway.control.names import has_account
from llmgateway.control.passwords import LONGEST, SignedIn, password_in, random_password
from llmgateway.control.people import NewUser, People, UserChanges
from llmgateway.control.projects import SERVICE
from llmgateway.domain.errors import (
    Conflict,
    GatewayError,
    InvalidRequest,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    OverLimit,
    StoreUnavailable,
)
from llmgateway.domain.people import GONE, Role, User
from llmgateway.domain.ports import Document, Shelf
from llmgateway.domain.secret import Secret

log = logging.getLogger(__name__)

LOGIN = re.compile(r"[a-z0-9][a-z0-9._@-]{0,62}[a-z0-9]", re.ASCII)
WINDOW = 900.0  # seconds in which tries are counted
PER_PAIR, PER_ADDRESS, PER_NAME = 10, 200, 100  # tries: of a name from an address, from one, of one
SIGN_UPS, HOUR = 20, 3600.0  # tries from an address
AT_ONCE = 2  # passwords hashed at a time: each takes 64 MiB
FIRST = "#first"  # no name of an account: the document that says whose the first one is
SHELF, SESSIONS = "tries", "sessions"
TRIES = 8
CLOSED = ""  # in place of a password's hash: no password fits
ROLES: Mapping[bool, list[Role]] = MappingProxyType({True: ["user", "admin"], False: ["user"]})
NETWORK = 64  # bits of an IPv6 address: the part that a provider gives to one line
NOBODY = "nobody"  # the target of a try that names no account

T = TypeVar("T")


class NewAccount(Struct, frozen=True, kw_only=True):
    """`claim` is the operators' credential, with which the first account of a gateway that others can reach
    becomes an administrator's."""

    login: str
    password: Secret
    name: str | None = None
    email: str | None = None
    claim: Secret | None = None


class NewPassword(Struct, frozen=True, kw_only=True):
    """What an operator set. `is_new`: the user had no account before; `ended`: so many sessions are over,
    None where they could not be reached."""

    password: Secret
    is_new: bool
    ended: int | None


class AccountRules(Struct, frozen=True, kw_only=True):
    """What the configuration allows. `is_private`: only who sits at this machine can reach the gateway.
    `has_provider`: people come from organisations, too, whose names have an @."""

    is_private: bool
    has_provider: bool = False
    sign_in: bool = True
    sign_up: bool = True


class Accounts:
    """`rules` is asked every time, since the configuration may change."""

    def __init__(
        self, ground: Ground, people: People, shelf: Shelf, *,
        admin_key: Secret, rules: Callable[[], AccountRules], hasher: PasswordHasher | None = None,
    ) -> None:  # fmt: skip
        self._store = ground.store
        self._audit = ground.audit
        self._clock = ground.clock
        self._people = people
        self._shelf = shelf
        self._admin_key = admin_key
        self._hasher = hasher or PasswordHasher()
        self._room = asyncio.Semaphore(AT_ONCE)
        self._of_nobody: str | None = None
        self.rules = rules

    async def is_first(self) -> bool:
        """Whether nobody has signed up yet."""
        return await self._store.get("accounts", FIRST) is None

    async def is_empty(self) -> bool:
        """Whether nobody has an account, not even one with a password that an operator set."""
        return not (await self._store.find("accounts", {}, limit=1)).data

    async def may_sign_up(self) -> bool:
        rules = self.rules()
        return rules.sign_in and (rules.sign_up or await self.is_first())

    async def has(self, user_id: str) -> bool:
        return await self._store.get("accounts", user_id) is not None

    async def sign_up(self, actor: Actor, new: NewAccount, address: str) -> User:
        """The first account is the administrator's, and may take over a user who is there already, such as
        the one of the first key."""
        if not await self.may_sign_up():
            raise InvalidRequest("Accounts cannot be made here; please ask the operators.")
        login, password = login_in(new.login), password_in(new.password, new.login)
        if "@" in login and self.rules().has_provider:
            raise InvalidRequest("Names with an @ are those of organisations here.", param="login")
        if await self._shelf.count(SHELF, f"up:{line_of(address)}", HOUR) > SIGN_UPS:
            raise OverLimit("Too many tries from your address; try again in an hour.", retry_after=60)
        async with self._audit.change(actor, "accounts.create", login) as entry:
            asked = NewUser(id=login, name=new.name or None, email=new.email or None)
            self._people.checked(asked)
            if await has_account(self._store, self._clock, login):
                raise _taken()  # before it becomes the first, which it could not be made as
            is_admin = await self._becomes_admin(login, new.claim)
            is_known = await self._need_free(login, is_admin=is_admin)
            digest = await self._hashed(password)
            await entry.accept({"is_admin": is_admin})
            make = self._taken_over if is_known else self._made
            return await make(actor, structs.replace(asked, roles=ROLES[is_admin]), digest)

    async def sign_in(self, actor: Actor, login: str, password: Secret, address: str) -> SignedIn:
        """Raises `NotAuthenticated` whatever is wrong, `OverLimit` after too many tries."""
        if not self.rules().sign_in:
            raise _wrong()
        login = login.strip().lower()[:100]
        await self._count_try(actor, login, address)
        account = await self._store.get("accounts", login) if LOGIN.fullmatch(login) else None
        digest = account["password"] if account else await self._digest_of_nobody()
        is_right = await self._matches(digest, password) and account is not None
        why = await self._against(login)
        # A name that is none may be a password, typed in the wrong place.
        target, result = login if account else NOBODY, (why.code if why else "ok") if is_right else "refused"
        await self._audit.write(actor, "accounts.sign_in", target, result=result, details={})
        if not is_right or account is None:
            raise _wrong()
        if why is not None:
            raise why
        for id in (f"pair:{login}:{line_of(address)}", f"name:{login}"):
            await self._shelf.delete(SHELF, id)
        if self._hasher.check_needs_rehash(digest):
            account = await self._replace(account, await self._hashed(password.reveal()))
        return SignedIn(login, account["revision"])

    async def is_still(self, proved: SignedIn) -> bool:
        """Whether the password is the one that was proved. A new one ends the sessions that are there: who
        asks this after a session was stored misses none."""
        account = await self._store.get("accounts", proved.user)
        return account is not None and account["revision"] == proved.revision

    async def change_password(self, actor: Actor, user_id: str, old: Secret, new: Secret) -> None:
        async with self._audit.change(actor, "accounts.password", user_id) as entry:
            if await self._shelf.count(SHELF, f"change:{user_id}", WINDOW) > PER_PAIR:
                raise OverLimit("Too many tries; please wait a while.", retry_after=60)
            account = await need(self._store, "accounts", user_id)
            if not await self._matches(account["password"], old):
                raise InvalidRequest("The current password is wrong.", param="old")
            digest = await self._hashed(password_in(new, user_id, "new"))
            await entry.accept({})
            await self._replace(account, digest)

    async def set_password(self, actor: Actor, user_id: str, password: Secret | None) -> NewPassword:
        """By an operator, for who has forgotten theirs or never had one; None makes a random one. All the
        user's sessions end."""
        async with self._audit.change(actor, "accounts.password", user_id) as entry:
            await self._need_local(user_id)
            chosen = random_password() if password is None else password
            digest = await self._hashed(password_in(chosen, user_id))
            await entry.accept({"is_new": not await self.has(user_id)})
            is_new = await self._put(user_id, digest)
            await self._need_local(user_id)  # unless it was ended in the same moment
        return NewPassword(password=chosen, is_new=is_new, ended=await self._end_sessions(user_id))

    def refusal_of(self, user: User) -> Conflict | None:
        """Why this user can have no password here."""
        if not self.rules().sign_in:
            return Conflict("Local accounts are off here; sign_in in the configuration file turns them on.")
        if user.state == "gone" or user.id.startswith((SERVICE, GONE)):
            return Conflict("This is nobody's account.")
        if user.provider is not None:
            return Conflict("This person signs in with an identity provider and has no password here.")
        if not LOGIN.fullmatch(user.id):
            return Conflict("This user name is no name that somebody can sign in by.")
        return None

    async def _need_local(self, user_id: str) -> Document:
        user = await need(self._store, "users", user_id)
        refusal = self.refusal_of(msgspec.convert(user, User))
        if refusal is not None:
            raise refusal
        return user

    async def _put(self, user_id: str, digest: str) -> bool:
        """Whether there was no account before."""
        for _ in range(TRIES):
            account = await self._store.get("accounts", user_id)
            if account is None and await self._is_opened(user_id, digest):
                return True
            if account is not None:
                with contextlib.suppress(Conflict):
                    await self._replace(account, digest)
                    return False
        raise Conflict("This account keeps changing; please try again.")

    async def _is_opened(self, user_id: str, digest: str) -> bool:
        """A first account for who is a user already; False where there is one. It opens nothing before it is
        sure that the user has not come in by another door meanwhile."""
        account = self._account(user_id, CLOSED)
        try:
            await self._store.insert("accounts", account)
        except Conflict:
            return False
        try:
            await self._claim(user_id)
        except (Conflict, NotFound):
            await self._store.delete("accounts", user_id)
            raise
        try:
            await self._replace(account, digest)
        except Conflict:  # another password was set meanwhile
            return False
        return True

    async def _end_sessions(self, user_id: str) -> int | None:
        """And lets the user try again who has tried too often."""
        try:
            found = await self._shelf.owned(SESSIONS, user_id)
            ended = [await self._shelf.delete(SESSIONS, id) for id in found]
            for id in (f"name:{user_id}", f"change:{user_id}"):
                await self._shelf.delete(SHELF, id)
        except StoreUnavailable as error:
            fields = {"user": user_id, "reason": error.message}
            log.warning("a password is set, and sessions could not be ended", extra={"fields": fields})
            return None
        return sum(ended)

    async def _becomes_admin(self, login: str, claim: Secret | None) -> bool:
        """Only one ever does: the document is inserted once. A try that failed after it may be repeated."""
        if claim is not None and not _same(claim, self._admin_key):
            raise InvalidRequest("That is not the operators' key of this gateway.", param="claim")
        if claim is None and not self.rules().is_private:
            return False
        mark: Document = {"id": FIRST, "revision": 0, "user": login, "created_at": now_of(self._clock)}
        with contextlib.suppress(Conflict):
            await self._store.insert("accounts", mark)
        first = await need(self._store, "accounts", FIRST)
        if first["user"] != login:
            return False
        return not [user async for user in each(self._store, "users", {}) if _is_other_admin(user, login)]

    async def _need_free(self, login: str, *, is_admin: bool) -> bool:
        """Whether there is a user of this name, whom only the first account may take over."""
        if not is_admin and not self.rules().sign_up:
            raise InvalidRequest("The first account here needs the operators' key.", param="claim")
        user = await self._store.get("users", login)
        if user is not None and (not is_admin or self.refusal_of(msgspec.convert(user, User))):
            raise _taken()
        return user is not None

    async def _against(self, login: str) -> GatewayError | None:
        """Why the right password does not do: it opens the account of a user who signs in here."""
        user = await self._store.get("users", login)
        if user is None or user.get("provider") is not None:
            return _wrong()
        if user.get("state", "active") != "active" or user.get("lapsed") is not None:
            return NotAllowed("This account is suspended; please ask the operators.", code="suspended")
        return None

    async def _made(self, actor: Actor, asked: NewUser, digest: str) -> User:
        """The account comes first, so that nobody comes in by its name at another door."""
        try:
            await self._store.insert("accounts", self._account(asked.id, digest))
        except Conflict:
            raise _taken() from None
        try:
            return await self._people.create(actor, asked)
        except Conflict:
            await self._store.delete("accounts", asked.id)
            raise _taken() from None

    async def _taken_over(self, actor: Actor, asked: NewUser, digest: str) -> User:
        if not await self._is_opened(asked.id, digest):
            raise _taken()
        changes = UserChanges(roles=asked.roles, name=asked.name or UNSET)
        return await self._people.change(actor, asked.id, changes)

    async def _claim(self, user_id: str) -> None:
        """The account is there. Whoever has looked for it before, to come in by another door, must look
        again: so the user changes, though nothing of it does."""
        for _ in range(TRIES):
            user = await self._need_local(user_id)
            with contextlib.suppress(Conflict):
                await self._store.replace("users", {**user, "revision": user["revision"] + 1})
                return
        raise Conflict("This account keeps changing; please try again.")

    async def _count_try(self, actor: Actor, login: str, address: str) -> None:
        line = line_of(address)
        limits = ((f"from:{line}", PER_ADDRESS), (f"pair:{login}:{line}", PER_PAIR),
                  (f"name:{login}", PER_NAME))  # fmt: skip
        for id, most in limits:
            count = await self._shelf.count(SHELF, id, WINDOW)
            if count == most + 1:  # once: what follows would drown everything else
                await self._audit.write(actor, "accounts.sign_in", NOBODY, result=OverLimit.code, details={})
            if count > most:
                raise OverLimit("Too many tries; please wait a quarter of an hour.", retry_after=60)

    def _account(self, login: str, digest: str) -> Document:
        return {"id": login, "revision": 0, "created_at": now_of(self._clock), "password": digest}

    async def _replace(self, account: Document, digest: str) -> Document:
        changed = {**account, "password": digest, "revision": account["revision"] + 1}
        await self._store.replace("accounts", changed)
        return changed

    async def _digest_of_nobody(self) -> str:
        if self._of_nobody is None:
            self._of_nobody = await self._hashed("nobody's password")
        return self._of_nobody

    async def _hashed(self, password: str) -> str:
        return await self._at_leisure(lambda: self._hasher.hash(password))

    async def _matches(self, digest: str, password: Secret) -> bool:
        given = password.reveal()[: LONGEST + 1]
        try:
            return await self._at_leisure(lambda: self._hasher.verify(digest, given))
        except (VerificationError, InvalidHashError):
            return False

    async def _at_leisure(self, work: Callable[[], T]) -> T:
        """In a thread, a few at a time: it is meant to be slow."""
        async with self._room:
            return await asyncio.to_thread(work)


def login_in(value: str) -> str:
    given = value.strip()
    login = given.lower()
    if not given.isascii() or not LOGIN.fullmatch(login):  # in lower case the sign for Kelvin is a k
        raise InvalidRequest(
            "A user name has 2 to 64 letters a-z, digits, dots, hyphens, underscores or @, "
            "and begins and ends with a letter or digit.", param="login")  # fmt: skip
    return login


def line_of(address: str) -> str:
    """Whose tries are counted together: of IPv6 a whole network, since each line has 2**64 addresses."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, IPv6Address) and found.ipv4_mapped is None:
        return str(ip_network(f"{found}/{NETWORK}", strict=False))
    return str(getattr(found, "ipv4_mapped", found))


def _is_other_admin(user: Document, login: str) -> bool:
    return user["id"] != login and "admin" in user.get("roles", ())


def _same(one: Secret, other: Secret) -> bool:
    return hmac.compare_digest(one.reveal().encode(), other.reveal().encode())


def _taken() -> Conflict:
    return Conflict("This user name is taken.", param="login")


def _wrong() -> NotAuthenticated:
    return NotAuthenticated("The user name or the password is wrong.")
