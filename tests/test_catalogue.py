"""`docs/reliability.md` and `docs/security.md` say what is shown; tests carry the numbers of their items."""

import pytest

from tests.catalogue import Catalogue, items_in

RELIABILITY = Catalogue("reliability.md", "R", {
    "load": range(1, 17), "fault": (*range(1, 18), *range(20, 26), *range(30, 36), *range(40, 54)),
    "acc": range(1, 22),
})  # fmt: skip
SECURITY = Catalogue("security.md", "S", {
    "key": range(1, 16), "ses": range(1, 8), "csrf": range(1, 4), "csp": range(1, 3), "cors": range(1, 2),
    "saml": range(1, 26), "aud": range(1, 2), "redir": range(1, 2), "prx": range(1, 22), "in": range(1, 15),
    "sup": range(1, 13),
})  # fmt: skip


def test_names_are_read() -> None:
    name = "test_r_fault_20_21_r_acc_08_of_10_calls"
    assert items_in(name) == {"R-fault-20", "R-fault-21", "R-acc-08"}
    assert items_in("test_s_saml_01_to_04_wrapped") == {f"S-saml-0{n}" for n in (1, 2, 3, 4)}
    assert items_in("test_r_load_13_s_in_08_large") == {"R-load-13", "S-in-08"}
    assert items_in("test_loads_in_12_things") == frozenset()


@pytest.mark.parametrize("catalogue", [RELIABILITY, SECURITY], ids=["reliability", "security"])
def test_the_page_and_the_tests_agree(catalogue: Catalogue) -> None:
    catalogue.check()
