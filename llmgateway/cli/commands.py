"""The command line as one tree: what there is, what each takes, and how it ends."""

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import Any

from llmgateway import __version__
from llmgateway.cli import (
    announcements,
    check,
    keys,
    ledger,
    limits,
    migrate,
    people,
    policy,
    projects,
    reports,
)
from llmgateway.cli.conform.command import add_options as add_conform, conform
from llmgateway.cli.options import Arguments, Run, output_options, settings_options
from llmgateway.cli.printing import complain, say, say_json
from llmgateway.cli.serve import serve
from llmgateway.control.announcements import ORDER
from llmgateway.domain.errors import GatewayError, InvalidRequest
from llmgateway.settings import BadSettings

FINE, TROUBLE, USAGE = 0, 1, 2


EVERY_SETTING = "Every setting is an option, too, such as --data-dir: llmgateway serve --help lists them."


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code."""
    words = sys.argv[1:] if argv is None else argv
    if not words:
        parser().print_help(sys.stderr)
        return USAGE
    try:
        arguments = parser().parse_args(words)
        code: int = arguments.run(arguments)
    except BadSettings as bad:
        wrong = "this is" if len(bad.complaints) == 1 else f"{len(bad.complaints)} things are"
        complain(f"nothing was done; {wrong} wrong with the settings:")
        for complaint in bad.complaints:
            complain(f"  {complaint}")
        return USAGE
    except GatewayError as error:
        complain(error.message)
        return USAGE if isinstance(error, InvalidRequest) else TROUBLE
    except BrokenPipeError:  # `llmgateway usage | head`
        sys.stderr.close()
        return TROUBLE
    except KeyboardInterrupt:
        return 130
    return code


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="llmgateway", description="A gateway in front of language models.")
    root.add_argument("--version", action="version", version=f"llmgateway {__version__}")
    commands = Commands(root, "command", (settings_options(are_told=False), output_options()))
    told = settings_options(are_told=True)
    commands.add("serve", "run the gateway in this process", serve, parents=(told,))
    commands.add("check", "look at the settings, and reach every store and model server", _async(check.check))
    add_conform(commands.add("conform", "run what the official SDKs rely on against a deployment", conform))
    _add_keys(commands.group("keys", "API keys"))
    _add_users(commands.group("users", "users"))
    _add_projects(commands.group("projects", "projects"))
    models = commands.group("models", "models")
    models.add("list", "all models, with where each comes from", _async(people.models))
    _add_limits(commands.group("limits", "limits of users, projects, keys, models, and of everybody"))
    _add_announcements(commands.group("announcements", "what stands at the head of every page of the portal"))
    _add_policy(commands.group("policy", "who may do what by the word of an identity provider"))
    _add_usage(commands.add("usage", "sums of the ledger", _async(reports.usage)))
    _add_ledger(commands.group("ledger", "the ledger and its journal"))
    audit = commands.group("audit", "the log of changes")
    audit.add("verify", "walk the chain of hashes; 1 where it is broken", _async(reports.verify_audit))
    _add_migrate(commands)
    commands.add("version", "what is installed", _version)
    return root


class Commands:
    """The sub-commands of one parser."""

    def __init__(
        self, parser: argparse.ArgumentParser, name: str, parents: Sequence[argparse.ArgumentParser]
    ) -> None:
        self._parents = parents
        self._group = parser.add_subparsers(dest=name, metavar=name, required=True)

    def group(self, name: str, text: str) -> "Commands":
        parser = self._group.add_parser(name, help=text, description=_sentence(text))
        return Commands(parser, "what", self._parents)

    def add(
        self, name: str, text: str, run: Callable[[Arguments], int],
        *, parents: Sequence[argparse.ArgumentParser] | None = None,
    ) -> Any:  # fmt: skip
        """The new command's parser, for its own arguments."""
        shared = list(self._parents if parents is None else parents)
        one = self._group.add_parser(
            name, help=text, description=_sentence(text), parents=shared, allow_abbrev=False,
            epilog=None if parents else EVERY_SETTING,
        )  # fmt: skip
        one.set_defaults(run=run)
        return one


def _add_keys(group: Commands) -> None:
    create = group.add("create", "make a key; it is shown this once", _async(keys.create))
    create.add_argument("--user", help="who it is for; made if not known yet")
    create.add_argument("--name", required=True, help="what it is for")
    create.add_argument("--models", help="the models it may use, with commas between them; all by default")
    create.add_argument("--expires", help="a span such as 90d or 12h, or a date; never by default")
    create.add_argument("--project", help="the project it belongs to: the user's by default; without --user "
                        "the key is the project's own")  # fmt: skip
    _add_limit(create)
    listing = group.add("list", "all keys", _async(keys.listing))
    listing.add_argument("--user", help="only this user's")
    listing.add_argument("--state", choices=("active", "suspended", "revoked"))
    group.add("revoke", "end a key, for good", _async(keys.revoke)).add_argument("id")
    rotate = group.add("rotate", "a new secret for a key", _async(keys.rotate))
    rotate.add_argument("id")
    rotate.add_argument("--overlap", help="how long the old one stays valid; 24h by default")


def _add_users(group: Commands) -> None:
    listing = group.add("list", "all users", _async(people.listing))
    listing.add_argument("--state", choices=("active", "suspended", "gone"))
    group.add("show", "a user and the user's keys", _async(people.show)).add_argument("id")
    group.add("suspend", "refuse all of a user's keys", _async(people.suspend)).add_argument("id")
    forget = group.add("forget", "end an account for good; its use stays under a pseudonym",
                       _async(people.forget))  # fmt: skip
    forget.add_argument("id")
    forget.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    password = group.add("password", "a new password for the portal; a random one is shown this once",
                         _async(people.password))  # fmt: skip
    password.add_argument("id", metavar="NAME")
    password.add_argument("--stdin", action="store_true", dest="is_piped",
                          help="take the first line of the input, and show nothing")  # fmt: skip
    group.add("activate", "let a suspended user in again", _async(people.activate)).add_argument("id")


def _add_projects(group: Commands) -> None:
    group.add("list", "all projects", _async(projects.listing))
    group.add("show", "a project, its members and its keys", _async(projects.show)).add_argument("id")
    create = group.add("create", "make a project", _async(projects.create))
    change = group.add("change", "change what is named", _async(projects.change))
    for one in (create, change):
        one.add_argument("id")
        one.add_argument("--name", help="what people call it")
        one.add_argument("--responsible", metavar="USER", help="who answers for it")
        one.add_argument("--expires", help="when it and its keys end: a span such as 90d, a date, or never")
        _add_limit(one)
    group.add("end", "end it now: all its keys are refused", _async(projects.end)).add_argument("id")
    group.add("delete", "only one without members and keys", _async(projects.delete)).add_argument("id")
    group.add("members", "who is in it", _async(projects.members)).add_argument("id")
    group.add("keys", "its own keys and its members'", _async(projects.keys)).add_argument("id")
    for name, text, run in (
        ("add-member", "from another project the user is taken away", projects.add_member),
        ("remove-member", "keys that were made before stay the project's", projects.remove_member),
    ):
        one = group.add(name, text, _async(run))
        one.add_argument("id")
        one.add_argument("user")


def _add_announcements(group: Commands) -> None:
    group.add("list", "all announcements, newest first", _async(announcements.listing))
    group.add("show", "an announcement", _async(announcements.show)).add_argument("id")
    create = group.add("create", "tell something to all who use the portal", _async(announcements.create))
    create.add_argument("text")
    change = group.add("change", "change what is named", _async(announcements.change))
    change.add_argument("id")
    change.add_argument("--text")
    for one in (create, change):
        one.add_argument("--level", choices=ORDER[::-1], help="how grave it is")
        one.add_argument("--starts", help="a span such as 2h, a date or time; at once by default")
        one.add_argument("--ends", help="the same, or never, as by default")
    group.add("end", "show it no more from now on", _async(announcements.end)).add_argument("id")
    group.add("delete", "delete it for good", _async(announcements.delete)).add_argument("id")


def _add_limit(parser: Any) -> None:
    parser.add_argument("--limit", action="append", default=[], dest="limits", metavar="NAME=NUMBER",
                        help="such as tokens_per_day=5000; may be given again")  # fmt: skip


def _add_limits(group: Commands) -> None:
    group.add("list", "all limits that are set", _async(limits.listing))
    show = group.add("show", "what is set for one, and what is used of it", _async(limits.show))
    put = group.add("set", "put limits in the place of all that were set", _async(limits.put))
    clear = group.add("clear", "back to what the settings say", _async(limits.clear))
    for one in (show, put, clear):
        one.add_argument("scope", help="user, project, key, model or default")
    for one in (show, clear):
        one.add_argument("id", nargs="?", help="of the user, project, key or model")
    put.add_argument("words", nargs="+", metavar="[id] name=number", help="such as alice tokens_per_day=5000")


def _add_policy(group: Commands) -> None:
    explain = group.add(
        "explain", "which rule gives what; 1 where nobody would be let in", _async(policy.explain)
    )
    whom = explain.add_mutually_exclusive_group(required=True)
    whom.add_argument("--assertion", metavar="FILE",
                      help="attributes as JSON, or a SAML response; nothing of it is verified")  # fmt: skip
    whom.add_argument("--key", metavar="ID", help="a key: its state, rights and limits, and their sources")
    explain.add_argument("--issuer", metavar="ENTITY_ID", help="the identity provider that says so")


def _add_usage(usage: Any) -> None:
    usage.add_argument("--by", default="", help="user, model, key, project, day, with commas between them")
    usage.add_argument("--from", dest="start", help="a date or time; it is part of the span")
    usage.add_argument("--to", dest="end", help="a date or time; it is not")
    usage.add_argument("--tz", help="time zone of days and dates; the configured one by default")
    usage.add_argument("--csv", action="store_true", dest="as_csv", help="CSV instead of a table")


def _add_ledger(group: Commands) -> None:
    group.add("status", "what is in the store, and what waits in journals", _async(ledger.status))
    group.add("verify", "prove that journals and store agree; 1 where they do not", _async(ledger.verify))
    group.add("rebuild", "make the sums of hours and days anew from the records", _async(ledger.rebuild))
    reconcile = group.add(
        "reconcile", "find and put right what journals, store and sums disagree on", _async(ledger.reconcile)
    )
    reconcile.add_argument(
        "--days", type=_days, default=0, help="look at what is younger; at all that is kept by default"
    )
    group.add("replay", "ship what dead workers and dead letters hold", _async(ledger.replay))


def _add_migrate(commands: Commands) -> None:
    one = commands.add("migrate", "copy an embedded data directory into MongoDB", _async(migrate.migrate))
    one.description = migrate.ABOUT
    one.add_argument("--from", dest="source", metavar="DIR",
                     help="the data directory to be copied; LLMGATEWAY_DATA_DIR by default")  # fmt: skip
    one.add_argument("--dry-run", action="store_true", dest="is_dry",
                     help="look at both sides and write nothing; 1 where anything is in the way")  # fmt: skip


def _days(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 36_500:
        raise argparse.ArgumentTypeError("give a number of days, such as 35")
    return int(text)


def _async(run: Run) -> Callable[[Arguments], int]:
    def command(arguments: Arguments) -> int:
        async def whole() -> int:
            return await run(arguments)

        return asyncio.run(whole())

    return command


def _version(arguments: Arguments) -> int:
    python = ".".join(map(str, sys.version_info[:3]))
    if arguments.as_json:
        say_json({"version": __version__, "python": python})
    else:
        say(f"llmgateway {__version__} (Python {python})")
    return FINE


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
