from tests.cli.conftest import Ask, Run


def test_a_project_is_made_changed_and_ended(ask: Ask, run: Run) -> None:
    assert "There are no projects" in run("projects", "list")[1]
    ask("keys", "create", "--user", "alice", "--name", "laptop")
    made = ask("projects", "create", "lab", "--name", "The lab", "--responsible", "alice", "--expires", "90d",
               "--limit", "cost_per_month=5")  # fmt: skip
    assert (made["state"], made["limits"]) == ("active", {"cost_per_month": 5})
    code, said = run("projects", "create", "lab")
    assert (code, "already" in said) == (1, True)
    assert [one["id"] for one in ask("projects", "list")["data"]] == ["lab"]
    changed = ask("projects", "change", "lab", "--expires", "never", "--responsible", "")
    assert changed == {**made, "expires_at": None, "responsible": None}
    assert ask("projects", "change", "lab", "--limit", "tokens_per_day=9")["limits"] == {"tokens_per_day": 9}
    for wrong in (("--expires", "5"), (), ("--limit", "many=5"), ("--responsible", "nobody")):
        assert run("projects", "change", "lab", *wrong)[0] == 2, wrong
    code, said = run("projects", "end", "lab")
    assert (code, "all its keys are refused" in said) == (0, True)
    assert ask("projects", "show", "lab")["state"] == "ended"
    assert ask("projects", "delete", "lab") == {"id": "lab", "deleted": True}
    assert run("projects", "show", "lab")[0] == 1
    assert run("audit", "verify")[0] == 0


def test_it_has_members_and_keys_of_its_own(ask: Ask, run: Run) -> None:
    ask("keys", "create", "--user", "alice", "--name", "laptop")
    ask("projects", "create", "lab")
    assert "add-member lab USER" in run("projects", "members", "lab")[1]
    assert "keys create --project lab" in run("projects", "keys", "lab")[1]
    assert "alice is a member of lab" in run("projects", "add-member", "lab", "alice")[1]
    own = ask("keys", "create", "--project", "lab", "--name", "ci")
    assert own["user"] == "service:lab"
    ask("keys", "create", "--user", "alice", "--name", "second")
    shown = ask("projects", "show", "lab")
    assert [user["id"] for user in shown["members"]] == ["alice"]
    assert {key["name"] for key in shown["keys"]} == {"ci", "second"}
    assert ask("projects", "keys", "lab")["data"] == shown["keys"]
    code, said = run("projects", "show", "lab")
    assert (code, "service:lab" in said) == (0, True)
    assert run("projects", "delete", "lab")[0] == 1
    assert ask("projects", "remove-member", "lab", "alice")["project"] is None
    for words in (("members", "none"), ("keys", "none"), ("remove-member", "lab", "alice")):
        assert run("projects", *words)[0] == 1, words
    assert run("keys", "create", "--project", "none", "--name", "ci")[0] == 1
    code, said = run("keys", "create", "--name", "ci")
    assert (code, "--user, or --project" in said) == (2, True)
