"""Pages renew as chosen while the server has room, and longer, for all who look, while it has not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from selftune.pace import BUSY, JITTER, LONGEST_S, RUNGS, WINDOW_S, Pace

FIVE, BANNER = 5.0, 2.0


class World:
    """Readers of one server whose drawings cost so much of a core each; time passes only here."""

    def __init__(self, readers: int, cost_s: float) -> None:
        self.now = self.used = 0.0
        self.cost_s = cost_s
        self.pace = Pace(clock=lambda: self.now, spent=lambda: self.used)
        self.readers = readers
        self.every = {
            (f"s{i}", part): self.pace.every_s(f"s{i}", part, chosen, longest)
            for i in range(readers)
            for part, chosen, longest in self.parts()
        }
        self.due = dict(self.every)

    @staticmethod
    def parts() -> tuple[tuple[str, float, float], ...]:
        return (("banner", BANNER, 8.0), ("charts", FIVE, LONGEST_S))

    def live(self, seconds: float) -> float:
        """Each draws when it is due, and goes by the pace that it is told. Returns the share of a core."""
        until, before = self.now + seconds, self.used
        told = {part: (chosen, longest) for part, chosen, longest in self.parts()}
        while (next_ := min(self.due, key=lambda x: self.due[x])) and self.due[next_] < until:
            self.now = max(self.now, self.due[next_])
            self.used += self.cost_s
            moved = self.pace.drawn(*next_, *told[next_[1]])
            self.every[next_] = moved if moved is not None else self.every[next_]
            self.due[next_] = self.now + self.every[next_]
        self.now = until
        return (self.used - before) / seconds

    def leave(self, stay: int) -> None:
        """All but `stay` readers close their page."""
        self.due = {k: t for k, t in self.due.items() if int(k[0][1:]) < stay}


def test_while_there_is_room_everybody_has_the_pace_they_chose() -> None:
    world = World(readers=20, cost_s=0.01)
    assert world.live(60) < BUSY
    assert {every for (_, part), every in world.every.items() if part == "charts"} == {FIVE}
    assert world.pace.stretch == 1 and world.pace.sessions == 20


def test_a_busy_server_slows_all_who_look_down_until_it_has_room_again() -> None:
    world = World(readers=100, cost_s=0.02)  # as chosen: 1.4 cores
    world.live(60)
    held = world.live(60)
    assert 0.2 < held <= BUSY
    charts = [every for (_, part), every in world.every.items() if part == "charts"]
    assert min(charts) > FIVE and len(set(charts)) > 50, "they do not ask in step"
    world.leave(5)
    world.live(120)
    assert {every for key, every in world.every.items() if key in world.due} == {BANNER, FIVE}


def test_the_pace_does_not_tremble() -> None:
    world, seen = World(readers=60, cost_s=0.012), []
    world.live(60)
    for _ in range(60):
        world.live(5)
        seen.append(world.pace.stretch)
    assert len(set(seen)) == 1


def test_the_banner_is_never_older_than_its_own_bound_however_busy_the_server() -> None:
    world = World(readers=100, cost_s=1.0)
    world.live(300)
    assert world.pace.stretch == RUNGS[-1]
    assert max(every for (_, part), every in world.every.items() if part == "banner") <= 8
    assert max(world.every.values()) <= LONGEST_S


def test_who_left_is_not_counted_and_who_renews_nothing_never_was() -> None:
    world = World(readers=3, cost_s=0.001)
    assert world.pace.every_s("quiet", "charts", 0) == 0
    assert world.pace.drawn("quiet", "charts", 0) is None
    world.leave(1)
    world.live(60)
    assert world.pace.sessions == 1


def test_a_part_that_the_server_does_not_know_is_told_its_pace_at_its_first_drawing() -> None:
    pace = Pace(clock=lambda: 0.0, spent=lambda: 0.0)
    assert pace.drawn("s", "charts", FIVE) == FIVE and pace.drawn("s", "charts", FIVE) is None


@given(
    chosen=st.floats(0.5, 60),
    readers=st.integers(1, 40),
    cost=st.floats(0.0001, 2.0),
    who=st.text(max_size=9),
)
def test_a_pace_is_never_shorter_than_chosen_nor_longer_than_its_bound(
    chosen: float, readers: int, cost: float, who: str
) -> None:
    now, used = [0.0], [0.0]
    pace = Pace(clock=lambda: now[0], spent=lambda: used[0])
    for i in range(8 * readers):
        now[0] += WINDOW_S / readers
        used[0] += cost
        pace.drawn(f"{who}{i % readers}", "charts", chosen)
    every = pace.every_s(who, "charts", chosen)
    assert chosen <= every <= max(chosen, min(LONGEST_S, chosen * RUNGS[-1]))
    assert (
        every == chosen or every >= chosen * 1.5 * (1 - JITTER) * 0.999 or every >= LONGEST_S * (1 - JITTER)
    )
