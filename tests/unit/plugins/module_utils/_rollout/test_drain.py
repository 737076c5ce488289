"""When a drain is over, by what load balancers show. Their answers are written down; tests/rollout has real ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import drain, haproxy

pytestmark = pytest.mark.oldest

LB, OTHER = "http://lb1:8404/", "http://lb2:8404/"
HEAD = "# pxname,svname,qcur,scur,stot,status,type,addr,\n"
UP = "web,web1,0,1,10,UP,2,10.0.0.1:8080,"


def page(*rows: str) -> str:
    return HEAD + "stats,FRONTEND,,1,7,OPEN,0,,\n" + "".join(f"{row}\n" for row in rows) + "web,BACKEND,0,1,20,UP,1,,\n"


def out(sessions: int = 0, queued: int = 0, status: str = "MAINT (resolution)", ever: int = 11) -> str:
    return page(f"web,web1,{queued},{sessions},{ever},{status},2,,")


def answer(url: str, text: str | None) -> haproxy.Statistics:
    if text is None:
        raise haproxy.NoAnswer(f"{url} does not answer (refused).")
    return haproxy.parse(url, text)


class Story:
    """Load balancers that answer one text after another (the last one for ever), and a clock that sleeping moves."""

    def __init__(self, **answers: Sequence[str | None]) -> None:
        self._answers = {{"lb": LB, "other": OTHER}[name]: list(texts) for name, texts in answers.items()}
        self.now = 0.0

    def asked(self, url: str) -> haproxy.Statistics:
        texts = self._answers[url]
        return answer(url, texts.pop(0) if len(texts) > 1 else texts[0])

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def drain(self, min_time: float = 0, deadline: float = 20, fixed: float = 10) -> drain.Drained:
        watched = drain.find(list(self._answers), ["10.0.0.1:8080"], self.asked)
        clock: Callable[[], float] = lambda: self.now  # noqa: E731
        return drain.wait(watched, 0.0, min_time, deadline, fixed, asked=self.asked, clock=clock, sleep=self.sleep)


def test_it_is_over_when_the_instance_is_out_and_idle() -> None:
    """By name: a slot that DNS took its instance from has no address, and keeps its session."""
    story = Story(lb=[page(UP), page(UP), out(sessions=1), out(queued=1), out()])
    done = story.drain()
    assert done.notes == []
    assert story.now == pytest.approx(3 * drain.EVERY)


def test_idle_is_not_drained_while_new_requests_come() -> None:
    idle = UP.replace(",0,1,10,", ",0,0,10,")
    story = Story(lb=[page(idle)] * 4 + [out()])
    story.drain()
    assert story.now == pytest.approx(3 * drain.EVERY)


def test_at_least_and_at_most() -> None:
    story = Story(lb=[page(UP), out()])
    story.drain(min_time=3)
    assert story.now == pytest.approx(3, abs=drain.EVERY)
    story = Story(lb=[page(UP), out(sessions=2)])
    assert story.drain(deadline=5).notes == [f"{LB} still shows 2 sessions after 5 s; they are given up."]
    assert story.now == pytest.approx(5, abs=drain.EVERY)


def test_one_that_goes_on_sending_requests_stops_the_deployment() -> None:
    with pytest.raises(HitlessError, match=f"{LB} still sends requests to this instance 5 s after .* .it is UP."):
        Story(lb=[page(UP)]).drain(deadline=5)


def test_all_are_asked() -> None:
    story = Story(lb=[page(UP), out()], other=[page(UP)] * 3 + [out()])
    story.drain()
    assert story.now == pytest.approx(2 * drain.EVERY)


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ([None], "does not answer (refused)."),
        ([page(UP), None], "does not answer (refused)."),
        ([page("web,web9,0,0,0,UP,2,10.0.0.9:8080,")], "shows no server at 10.0.0.1:8080."),
        # A new process: the sessions of the old one are in nobody's statistics.
        ([page(UP), out(ever=0)], "was reloaded meanwhile, and no longer shows the sessions of its old process."),
        ([page(UP), page("web,web9,0,0,90,UP,2,10.0.0.9:8080,")], "was reloaded meanwhile"),
    ],
)
def test_one_that_cannot_be_observed_is_named_and_waited_for(answers: list[str | None], why: str) -> None:
    story = Story(lb=[page(UP), out()], other=answers)
    done = story.drain()
    assert story.now == pytest.approx(10, abs=drain.EVERY)
    (note,) = done.notes
    assert note.startswith(f"{OTHER} {why}")
    assert note.endswith("It was waited for by the fixed time (10 s).")


def test_one_that_answers_again_is_believed_again() -> None:
    story = Story(lb=[page(UP), None, out()])
    done = story.drain()
    assert story.now == pytest.approx(drain.EVERY)
    assert len(done.notes) == 1
