"""`make fair-share`: the pictures and figures of docs/fair-share.md."""

from collections.abc import Sequence
from pathlib import Path

from tests.fair_share.chart import Axis, Curve, Panel, svg
from tests.fair_share.simulation import Group, Scene, Seen, play

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
HOUR = 3600.0
MANY = Group(name="ordinary", users=9950, pause=900)
GREEDY = Group(name="greedy", users=50, streams=20)
TEN = Group(name="ten", users=10)
ONE = Group(name="one", users=1, streams=100)


def show(what: str, seen: Seen, group: str) -> None:
    first = ", ".join(f"p{percent} {seen.percentile(group, percent):.2f} s" for percent in (50, 95, 99))
    tokens = {name: sum(minutes.values()) for name, minutes in seen.by_minute.items()}
    print(f"{what:34} first token of {group}: {first}; {len(seen.firsts[group])} calls; tokens {tokens}")


def distribution(name: str, seen: Seen, group: str) -> Curve:
    return Curve(name, [(seen.percentile(group, percent), percent) for percent in range(101)])


def served(name: str, seen: Seen, group: str) -> Curve:
    minutes = range(1, int(HOUR // 60))
    return Curve(name, [(minute, seen.by_minute[group][minute] / 1000) for minute in minutes])


def panels(alone: Seen, fair: Seen, first_come: Seen) -> Sequence[Panel]:
    percent = Axis(name="% of ordinary users' calls", low=0, high=100, marks=(0, 25, 50, 75, 95))
    seconds = Axis(name="seconds until the first token (or less)", low=0.05, high=300, is_log=True,
                   marks=(0.1, 0.3, 1, 3, 10, 30, 100, 300))  # fmt: skip
    minutes = Axis(name="minute", low=0, high=60, marks=range(0, 61, 10))
    tokens = Axis(name="thousand tokens a minute", low=0, high=240, marks=range(0, 241, 40))
    waits = [("no greedy users", alone), ("fair share", fair), ("first come, first served", first_come)]
    return [
        Panel(title="How long 9,950 ordinary users wait", x=seconds, y=percent, legend=(90, 30),
              curves=[distribution(name, seen, "ordinary") for name, seen in waits]),
        Panel(title="What 50 greedy users leave to them", x=minutes, y=tokens, legend=(58, 230),
              curves=[served("ordinary, fair share", fair, "ordinary"),
                      served("ordinary, first come", first_come, "ordinary"),
                      served("greedy, fair share", fair, "greedy"),
                      served("greedy, first come", first_come, "greedy")]),
    ]  # fmt: skip


def main() -> None:
    alone, fair, first_come = (
        play(Scene(groups=groups, places=64, seconds=HOUR, is_fair=is_fair))
        for groups, is_fair in (([MANY], True), ([MANY, GREEDY], True), ([MANY, GREEDY], False))
    )
    show("10,000 users, the greedy away", alone, "ordinary")
    show("10,000 users, fair share", fair, "ordinary")
    show("10,000 users, first come", first_come, "ordinary")
    for what, groups, is_fair in (("ten", [TEN], True), ("ten and one with 100 streams", [TEN, ONE], True),
                                  ("the same, first come", [TEN, ONE], False)):  # fmt: skip
        show(what, play(Scene(groups=groups, places=8, seconds=HOUR, is_fair=is_fair)), "ten")
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / "fair-share.svg").write_text(svg(panels(alone, fair, first_come)))


if __name__ == "__main__":
    main()
