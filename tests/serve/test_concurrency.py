"""How many requests are served at once, and what becomes of those whose client leaves."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from starlette.requests import ClientDisconnect, Request

from kit.serve.concurrency import Capacity, Line, in_pool, unless_disconnected
from kit.serve.responses import RequestError
from kit.serve.rest import predict_in


def request(left: asyncio.Event) -> Request:
    """A request whose client leaves when the event is set."""

    async def receive():
        await left.wait()
        return {"type": "http.disconnect"}

    return Request({"type": "http"}, receive)


def test_the_capacity_counts_those_that_something_else_admitted():
    capacity = Capacity(2, elsewhere=lambda: 1)
    with capacity.slot():
        assert capacity.used == 2
        with pytest.raises(RequestError, match="too many requests at once") as caught, capacity.slot():
            pass
        assert caught.value.status == 503
        assert caught.value.headers == {"Retry-After": "1"}
    assert capacity.used == 1


def test_a_slot_is_free_again_after_an_error():
    capacity = Capacity(1)
    for _ in range(3):
        with pytest.raises(ValueError), capacity.slot():
            raise ValueError
    assert capacity.used == 0


def test_the_result_of_the_work_or_its_error_is_passed_on():
    async def work(error=None):
        if error:
            raise error
        return "rows"

    async def both():
        assert await unless_disconnected(request(asyncio.Event()), work()) == "rows"
        with pytest.raises(ValueError, match="broken"):
            await unless_disconnected(request(asyncio.Event()), work(ValueError("broken")))

    asyncio.run(both())


def test_the_images_of_a_client_that_leaves_are_not_computed():
    async def leave():
        pool, left, release, computed = ThreadPoolExecutor(1), asyncio.Event(), threading.Event(), []

        def predict(data):
            release.wait(10)
            computed.append(data)
            return [data]

        predictor = SimpleNamespace(predict=predict)
        stays = asyncio.ensure_future(predict_in(pool, predictor, ["first"]))
        job = unless_disconnected(request(left), predict_in(pool, predictor, ["second", "third"]))
        leaves = asyncio.ensure_future(job)
        await asyncio.sleep(0.05)
        left.set()
        with pytest.raises(ClientDisconnect):
            await leaves
        release.set()
        assert await stays == ["first"]
        pool.shutdown()
        return computed

    assert asyncio.run(leave()) == ["first"]


def test_a_request_of_many_images_does_not_keep_another_waiting_until_its_end():
    async def both():
        with ThreadPoolExecutor(1) as pool:
            computed = []
            predictor = SimpleNamespace(predict=lambda data: computed.append(data) or [data])
            many = asyncio.ensure_future(predict_in(pool, predictor, list(range(20))))
            one = asyncio.ensure_future(predict_in(pool, predictor, ["one"]))
            assert await many == list(range(20))
            assert await one == ["one"]
            return computed

    computed = asyncio.run(both())
    assert len(computed) == 21
    assert computed.index("one") < 8


def test_the_pages_predictor_works_in_the_pool_and_passes_errors_on():
    def fails(pixels):
        raise ValueError("broken")

    predictor = SimpleNamespace(prepare=lambda source: threading.current_thread().name, engine=fails)
    with ThreadPoolExecutor(1, thread_name_prefix="pool") as pool:
        shared = in_pool(predictor, pool)
        assert shared.prepare("cat.jpg").startswith("pool")
        with pytest.raises(ValueError, match="broken"):
            shared.engine(None)
    assert predictor.engine is fails


def test_visitors_take_turns_in_the_order_in_which_they_came():
    line = Line()
    assert [line.ahead(name) for name in "abcab"] == [0, 1, 2, 0, 1]
    line.leave("a")
    line.leave("never here")
    assert [line.ahead(name) for name in "bca"] == [0, 1, 2]


def test_a_visitor_who_is_not_seen_for_a_while_loses_the_turn():
    now = [0.0]
    line = Line(patience=10, clock=lambda: now[0])
    assert [line.ahead("gone"), line.ahead("waits")] == [0, 1]
    now[0] = 9.0
    assert line.ahead("waits") == 1
    now[0] = 11.0
    assert [line.ahead("waits"), line.ahead("gone")] == [0, 1]
