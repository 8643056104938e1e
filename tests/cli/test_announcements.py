from tests.cli.conftest import Ask, Run


def test_an_announcement_is_made_changed_ended_and_deleted(ask: Ask, run: Run) -> None:
    assert "There are no announcements" in run("announcements", "list")[1]
    later = ask("announcements", "create", "Maintenance", "--starts", "2h", "--ends", "1d")
    now = ask("announcements", "create", "Hello", "--level", "warning")
    assert (later["state"], now["state"]) == ("planned", "shown")
    assert {one["text"] for one in ask("announcements", "list")["data"]} == {"Maintenance", "Hello"}
    assert run("announcements", "end", later["id"])[0] == 1
    code, said = run("announcements", "end", now["id"])
    assert (code, "is not shown any more" in said) == (0, True)
    changed = ask("announcements", "change", later["id"], "--ends", "never", "--text", "No maintenance")
    assert changed == {**later, "ends_at": None, "text": "No maintenance"}
    assert "from" in run("announcements", "change", later["id"], "--starts", "3h")[1]
    for wrong in ((), ("--starts", "5"), ("--ends", "2020-01-01")):
        assert run("announcements", "change", later["id"], *wrong)[0] == 2, wrong
    assert ask("announcements", "show", now["id"])["state"] == "over"
    assert ask("announcements", "delete", now["id"]) == {"id": now["id"], "deleted": True}
    code, said = run("announcements", "delete", later["id"])
    assert (code, "is deleted" in said) == (0, True)
    assert run("announcements", "show", later["id"])[0] == 1
    assert run("audit", "verify")[0] == 0
