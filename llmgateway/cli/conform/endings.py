"""How a check ends when all is not well: it failed, or differs in what no SDK needs, or could not be made."""


class Failed(Exception):
    """Programs are going to notice. `came` is as the server said it."""

    def __init__(self, expected: str, came: object) -> None:
        super().__init__(expected)
        self.expected = expected
        self.came = str(came)


class Broken(Failed):
    """There was no whole answer at all."""


class Late(Broken):
    """Nothing more had come when the time was over."""


class Differs(Failed):
    """Only what this gateway does beyond others is missing."""


class Skipped(Exception):
    """The text says why."""
