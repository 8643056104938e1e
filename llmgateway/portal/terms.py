"""The terms of use: read, and accepted."""

from msgspec import Struct

from llmgateway.domain.errors import Conflict
from llmgateway.portal.sign_in import status_of
from llmgateway.portal.visit import Answer, Desk, Page, Redirect, Visit


class Piece(Struct, frozen=True):
    """A heading has its line, a paragraph its text, a list its points."""

    kind: str
    lines: tuple[str, ...]


async def show(desk: Desk, visit: Visit, error: Conflict | None = None) -> Answer:
    terms, accepted = desk.control.agreements.terms, await desk.control.agreements.of(visit.me.id)
    values = {
        "terms": terms, "pieces": pieces(terms.text) if terms else [], "accepted": accepted[::-1],
        "is_owed": await desk.control.agreements.is_owed(visit.me.id), "error": error,
        "next": visit.form.text("next") or visit.asked("next"),
    }  # fmt: skip
    return Page("terms.html", values, status_of(error))


async def accept(desk: Desk, visit: Visit) -> Answer:
    try:
        await desk.control.agreements.accept(visit.actor, visit.me.id, visit.form.text("version"))
    except Conflict as error:
        return await show(desk, visit, error)
    return Redirect("overview", said="accepted", wish=visit.form.text("next"))


def pieces(text: str) -> list[Piece]:
    """Plain text with headings and lists, as blocks."""
    found: list[Piece] = []
    for line in text.splitlines():
        stripped = line.strip()
        kind = "heading" if stripped.startswith("#") else "list" if stripped.startswith("- ") else "text"
        said = stripped.lstrip("#").strip() if kind == "heading" else stripped.removeprefix("- ")
        last = found[-1] if found else None
        if not stripped:
            found.append(Piece("gap", ()))
        elif last is not None and last.kind == kind == "list":
            found[-1] = Piece(kind, (*last.lines, said))
        elif last is not None and kind == "text" and last.kind == "text":
            found[-1] = Piece(kind, (f"{last.lines[0]} {said}",))
        elif last is not None and kind == "text" and last.kind == "list":
            found[-1] = Piece("list", (*last.lines[:-1], f"{last.lines[-1]} {said}"))
        else:
            found.append(Piece(kind, (said,)))
    return [piece for piece in found if piece.kind != "gap"]
