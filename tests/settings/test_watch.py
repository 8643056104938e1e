from pathlib import Path

from llmgateway.settings.watch import ConfigWatch


def test_a_change_counts_once_it_has_stood_still(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text("a")
    watch = ConfigWatch(path)
    assert [watch.changed(), watch.changed()] == [False, False]
    path.write_text("ab")
    assert watch.changed() is False
    path.write_text("abc")
    assert [watch.changed(), watch.changed(), watch.changed()] == [False, True, False]


def test_a_swapped_link_and_a_file_that_vanished_are_changes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text("same")
    path = tmp_path / "gateway.yaml"
    path.symlink_to("one")
    watch = ConfigWatch(path)
    (tmp_path / "new").symlink_to("two")
    (tmp_path / "new").replace(path)
    assert [watch.changed(), watch.changed()] == [False, True]
    path.unlink()
    assert [watch.changed(), watch.changed(), watch.changed()] == [False, True, False]
