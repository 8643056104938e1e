"""`python -m tests.capacity`: the tables of docs/operations/capacity.md, written into it."""

from pathlib import Path

from tests.capacity.tables import PAGE, TABLES, with_tables


def main() -> None:
    page = Path(PAGE)
    page.write_text(with_tables(page.read_text(), TABLES))


if __name__ == "__main__":
    main()
