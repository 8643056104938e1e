"""Local accounts: a name and a password, for gateways without an identity provider.

Signing in tells nobody which names there are: a wrong name costs the same time and gets the same answer as a
wrong password. Tries are counted before a password is looked at, so many at once are no more than one by one.
"""

import asyncio
import contextlib
import hmac
import logging
import re
import secrets
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from msgspec import Struct

from llmgateway.control.audit import Actor
from llmgateway.control.changes import each, need
from llmgateway.control.ground import Ground
from llmgateway.control.moments import now_of
from llmgateway.control.people import NewUser, People, UserChanges
from llmgateway.control.projects import SERVICE
from llmgateway.domain.errors import (
    Conflict,
    GatewayError,
    InvalidRequest,
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
SHORTEST, LONGEST = 10, 1000  # characters of a password
WINDOW = 900.0  # seconds in which tries are counted
PER_PAIR, PER_ADDRESS, PER_NAME = 10, 200, 100  # tries: of a name from an address, from one, of one
SIGN_UPS, HOUR = 20, 3600.0  # tries from an address
AT_ONCE = 2  # passwords hashed at a time: each takes 64 MiB
FIRST = "#first"  # no name of an account: the document that says whose the first one is
SHELF, SESSIONS = "tries", "sessions"
TRIES = 8
LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"  # none that is taken for another when it is read aloud
GROUPS, GROUP_LENGTH = 4, 5  # of a random password: 100 bits
LONG, NETWORK = 6, 64  # the version of IP, and the bits of the part that a provider gives to one line
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
    """What the configuration allows. `is_private`: only who sits at this machine can reach the gateway."""

    is_private: bool
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
        if await self._shelf.count(SHELF, f"up:{_line_of(address)}", HOUR) > SIGN_UPS:
            raise OverLimit("Too many tries from your address; try again in an hour.", retry_after=60)
        async with self._audit.change(actor, "accounts.create", login) as entry:
            if await self.has(login):  # before it becomes the first, which it could not be made as
                raise _taken()
            is_admin = await self._becomes_admin(login, new.claim)
            await self._need_free(login, is_admin=is_admin)
            digest = await self._hashed(password)
            await entry.accept({"is_admin": is_admin})
            user = await self._user(actor, login, new, is_admin=is_admin)
            try:
                await self._store.insert("accounts", self._account(login, digest))
            except Conflict:
                raise _taken() from None
            except GatewayError:
                await self._take_back(login, is_admin=is_admin)
                raise
        return user

    async def sign_in(self, actor: Actor, login: str, password: Secret, address: str) -> str:
        """The user's id. Raises `NotAuthenticated` whatever is wrong, `OverLimit` after too many tries."""
        if not self.rules().sign_in:
            raise _wrong()
        login = login.strip().lower()[:100]
        await self._count_try(login, address)
        account = await self._store.get("accounts", login) if LOGIN.fullmatch(login) else None
        digest = account["password"] if account else await self._digest_of_nobody()
        is_right = await self._matches(digest, password)
        # A name that is none may be a password, typed in the wrong place.
        target, result = login if account else NOBODY, "ok" if is_right and account else "refused"
        await self._audit.write(actor, "accounts.sign_in", target, result=result, details={})
        if not is_right or account is None:
            raise _wrong()
        for id in (f"pair:{login}:{_line_of(address)}", f"name:{login}"):
            await self._shelf.delete(SHELF, id)
        if self._hasher.check_needs_rehash(digest):
            await self._replace(account, await self._hashed(password.reveal()))
        return login

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
            chosen = _random_password() if password is None else password
            digest = await self._hashed(password_in(chosen, user_id))
            await entry.accept({"is_new": not await self.has(user_id)})
            is_new = await self._put(user_id, digest)
            try:
                await self._need_local(user_id)
            except (Conflict, NotFound):  # ended, or come from a provider, in the same moment
                if is_new:
                    await self._store.delete("accounts", user_id)
                raise
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

    async def _need_local(self, user_id: str) -> None:
        refusal = self.refusal_of(await self._people.get(user_id))
        if refusal is not None:
            raise refusal

    async def _put(self, user_id: str, digest: str) -> bool:
        """Whether there was no account before."""
        for _ in range(TRIES):
            account = await self._store.get("accounts", user_id)
            with contextlib.suppress(Conflict):
                if account is None:
                    await self._store.insert("accounts", self._account(user_id, digest))
                else:
                    await self._replace(account, digest)
                return account is None
        raise Conflict("This account keeps changing; please try again.")

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

    async def _need_free(self, login: str, *, is_admin: bool) -> None:
        if not is_admin and not self.rules().sign_up:
            raise InvalidRequest("The first account here needs the operators' key.", param="claim")
        user = await self._store.get("users", login)
        if user is not None and (not is_admin or user.get("state") == "gone"):
            raise _taken()

    async def _user(self, actor: Actor, login: str, new: NewAccount, *, is_admin: bool) -> User:
        roles: list[Role] = ["user", "admin"] if is_admin else ["user"]
        try:
            return await self._people.create(
                actor, NewUser(id=login, name=new.name or None, email=new.email or None, roles=roles)
            )
        except Conflict:
            if not is_admin:
                raise _taken() from None
        changes = UserChanges(roles=roles) if not new.name else UserChanges(roles=roles, name=new.name)
        return await self._people.change(actor, login, changes)

    async def _take_back(self, login: str, *, is_admin: bool) -> None:
        """Else the name would be nobody's for ever. The first account's may be taken over anyway."""
        if not is_admin:
            with contextlib.suppress(GatewayError):
                await self._store.delete("users", login)

    async def _count_try(self, login: str, address: str) -> None:
        line = _line_of(address)
        limits = ((f"from:{line}", PER_ADDRESS), (f"pair:{login}:{line}", PER_PAIR),
                  (f"name:{login}", PER_NAME))  # fmt: skip
        for id, most in limits:
            if await self._shelf.count(SHELF, id, WINDOW) > most:
                raise OverLimit("Too many tries; please wait a quarter of an hour.", retry_after=60)

    def _account(self, login: str, digest: str) -> Document:
        return {"id": login, "revision": 0, "created_at": now_of(self._clock), "password": digest}

    async def _replace(self, account: Document, digest: str) -> None:
        changed = {**account, "password": digest, "revision": account["revision"] + 1}
        await self._store.replace("accounts", changed)

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
    login = value.strip().lower()
    if not LOGIN.fullmatch(login):
        raise InvalidRequest(
            "A user name has 2 to 64 letters a-z, digits, dots, hyphens, underscores or @, "
            "and begins and ends with a letter or digit.", param="login")  # fmt: skip
    return login


def password_in(value: Secret, login: str, param: str = "password") -> str:
    password = value.reveal()
    if not SHORTEST <= len(password) <= LONGEST:
        raise InvalidRequest("A password has at least 10 characters.", param=param)
    if password.lower() == login.strip().lower() or len(set(password)) < 4:
        raise InvalidRequest("That password is too easy to guess.", param=param)
    try:
        password.encode()
    except UnicodeError:
        raise InvalidRequest("That password cannot be written.", param=param) from None
    return password


def _random_password() -> Secret:
    groups = ("".join(secrets.choice(LETTERS) for _ in range(GROUP_LENGTH)) for _ in range(GROUPS))
    return Secret("-".join(groups))


def _line_of(address: str) -> str:
    """Whose tries are counted together: of IPv6 a whole network, since each line has 2**64 addresses."""
    try:
        is_long = ip_address(address).version == LONG
    except ValueError:
        return address
    return str(ip_network(f"{address}/{NETWORK}", strict=False)) if is_long else address


def _is_other_admin(user: Document, login: str) -> bool:
    return user["id"] != login and "admin" in user.get("roles", ())


def _same(one: Secret, other: Secret) -> bool:
    return hmac.compare_digest(one.reveal().encode(), other.reveal().encode())


def _taken() -> Conflict:
    return Conflict("This user name is taken.", param="login")


def _wrong() -> NotAuthenticated:
    return NotAuthenticated("The user name or the password is wrong.")
