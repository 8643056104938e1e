"""Settings that cannot work, with everything that is wrong about them."""

from collections.abc import Iterable


class BadSettings(Exception):
    """Each complaint begins with the setting's name or the place in the YAML file; none shows a secret."""

    def __init__(self, complaints: Iterable[str]) -> None:
        self.complaints = list(complaints)
        super().__init__("\n  - ".join(["These settings cannot work:", *self.complaints]))
