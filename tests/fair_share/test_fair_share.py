"""One greedy user does not spoil it for the others; weights are shares; the pictures can be drawn again."""

import xml.etree.ElementTree as ET

import pytest

from tests.fair_share.__main__ import ONE, TEN, panels
from tests.fair_share.chart import svg
from tests.fair_share.simulation import Group, Scene, play

PLACES, HALF_AN_HOUR = 8, 1800.0


def test_ten_users_hardly_notice_one_with_a_hundred_streams() -> None:
    alone = play(Scene(groups=[TEN], places=PLACES, seconds=HALF_AN_HOUR))
    crowded = play(Scene(groups=[TEN, ONE], places=PLACES, seconds=HALF_AN_HOUR))
    assert len(alone.firsts["ten"]) > 3000
    assert crowded.percentile("ten", 95) <= 2 * alone.percentile("ten", 95)
    assert crowded.percentile("ten", 50) <= 2 * alone.percentile("ten", 50)
    first_come = play(Scene(groups=[TEN, ONE], places=PLACES, seconds=HALF_AN_HOUR, is_fair=False))
    assert first_come.percentile("ten", 95) > 10 * alone.percentile("ten", 95)


def test_eleven_users_are_served_alike() -> None:
    tokens = play(Scene(groups=[TEN, ONE], places=PLACES, seconds=HALF_AN_HOUR)).by_user
    assert len(tokens) == 11
    assert max(tokens.values()) < 1.25 * min(tokens.values())


def test_those_who_want_more_than_there_is_get_it_by_weight() -> None:
    groups = [
        Group(name="single", users=2, streams=20),
        Group(name="double", users=2, streams=20, weight=2.0),
    ]
    tokens = play(Scene(groups=groups, places=PLACES, seconds=HALF_AN_HOUR)).by_user
    for single in ("single0", "single1"):
        for double in ("double0", "double1"):
            assert tokens[double] / tokens[single] == pytest.approx(2, rel=0.05)


def test_nothing_is_left_idle() -> None:
    """As much is made in all as when nobody is held back."""
    groups = [Group(name="few", users=3, pause=30), ONE]

    def made(*, is_fair: bool) -> int:
        scene = Scene(groups=groups, places=PLACES, seconds=HALF_AN_HOUR, is_fair=is_fair)
        return play(scene).by_user.total()

    assert made(is_fair=True) == pytest.approx(made(is_fair=False), rel=0.01)


def test_the_picture_is_the_same_each_time() -> None:
    groups = [Group(name="ordinary", users=20, pause=5), Group(name="greedy", users=1, streams=20)]

    def draw() -> str:
        seen = play(Scene(groups=groups, places=4, seconds=120))
        return svg(panels(seen, seen, seen))

    drawn = draw()
    assert draw() == drawn
    assert len(ET.fromstring(drawn).findall(".//{http://www.w3.org/2000/svg}polyline")) == 7
