"""What may change while the gateway runs: the configuration file, and so the models, prices and defaults."""

import logging

from msgspec.structs import replace

from llmgateway.control.ground import Configuration
from llmgateway.domain.book import LimitBook
from llmgateway.domain.catalog import Model, Target
from llmgateway.domain.entries import Defaults
from llmgateway.settings import DEFAULT_CONFIG, BadSettings, ConfigWatch, Settings, of_this_process, read_file

log = logging.getLogger(__name__)

ECHO = Model(id="echo", targets=(Target(provider="echo", url="", model="echo"),), source="built-in")
FIXED = ("currency", "stores", "max_body", "saml", "upstream_networks")  # of the file, until a restart


def book_of(settings: Settings) -> LimitBook:
    limits = settings.limits
    return LimitBook(
        default=limits.default, users=limits.users, projects=limits.projects, models=limits.models,
        weights=settings.file.fair_share,
    )  # fmt: skip


class InForce:
    """The settings in force, replaced whole. `version` counts from 1.

    Where no file was there at the start the usual one is waited for: people make it while they try it out."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.version = 1
        self._watch = ConfigWatch(settings.config or DEFAULT_CONFIG)

    def configuration(self) -> Configuration:
        settings = self.settings
        built_in = () if settings.is_production else (ECHO,)
        return Configuration(
            base_models=(*settings.models, *built_in),
            defaults=Defaults(currency=settings.currency, deadlines=settings.deadlines, source="admin"),
            limits=book_of(settings),
            policy=settings.file.policy,
            time_zone=settings.time_zone,
            terms=settings.file.portal.terms,
        )

    def take_over_changes(self) -> bool:
        """Whether a new file is in force. One that is wrong, or changes what cannot change now, is complained
        about, and the old one stays as a whole."""
        if not self._watch.changed():
            return False
        try:
            file = read_file(self._watch.path, of_this_process())
            changed = replace(self.settings, config=self._watch.path).with_file(file)
            self._refuse_fixed(changed)
        except BadSettings as bad:
            fields = {"complaints": bad.complaints}
            log.error("the changed configuration file is not taken over", extra={"fields": fields})  # noqa: TRY400
            return False
        self.settings = changed
        self.version += 1
        log.info("the changed configuration file is taken over", extra={"fields": {"version": self.version}})
        return True

    def _refuse_fixed(self, changed: Settings) -> None:
        before, after = self.settings.file, changed.file
        differing = [name for name in FIXED if getattr(before, name) != getattr(after, name)]
        if differing:
            raise BadSettings([f"{name}: it has changed, which takes a restart" for name in differing])
