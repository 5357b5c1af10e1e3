"""A request's trace: read, passed on to its task, said in the response."""

from __future__ import annotations

import structlog

from forebay.core.trace import read_trace
from tests.api.door import Door, eventually
from tests.api.test_app import ASK, CHAT

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
GIVEN = f"00-{TRACE}-{SPAN}-01"
TASK = {"messages": ASK["messages"]}


async def test_a_callers_trace_goes_on_with_a_step_of_our_own(door: Door) -> None:
    with structlog.testing.capture_logs(
        processors=[structlog.contextvars.merge_contextvars]
    ) as lines:
        told = await door.http.get("/v1/models", headers={"traceparent": GIVEN})
        # the line is written once all of the answer is
        await eventually(lambda: any(line["event"] == "request" for line in lines))
    step = read_trace(told.headers["traceparent"])
    assert step is not None
    assert (step.trace_id, step.flags) == (TRACE, "01")
    assert step.span_id != SPAN
    assert told.headers["traceresponse"] == told.headers["traceparent"]
    [line] = [line for line in lines if line["event"] == "request"]
    assert (line["trace_id"], line["span_id"]) == (TRACE, step.span_id)


async def test_without_one_or_with_a_bad_one_there_is_a_new_one_each_time(door: Door) -> None:
    headers = [{}, {}, {"traceparent": "nonsense"}, {"traceparent": GIVEN.upper()}]
    found = [
        read_trace((await door.http.get("/healthz", headers=one)).headers["traceparent"])
        for one in headers
    ]
    assert len({one.trace_id for one in found if one}) == len(headers)
    assert TRACE not in {one.trace_id for one in found if one}


async def test_two_headers_are_none(door: Door) -> None:
    told = await door.http.get("/healthz", headers=[("traceparent", GIVEN), ("traceparent", GIVEN)])
    assert TRACE not in told.headers["traceparent"]


async def test_a_refusal_has_one_too(door: Door) -> None:
    refused = await door.http.post(CHAT, json={}, headers={"traceparent": GIVEN})
    assert refused.status_code == 400
    assert TRACE in refused.headers["traceparent"]


async def test_the_worker_gets_it_with_the_task(door: Door) -> None:
    told = await door.http.post("/v1/tasks", json=TASK, headers={"traceparent": GIVEN})
    assert told.status_code == 202
    [lease] = await door.queue.claim("w", 1, 10**9)
    assert lease.terms.trace == read_trace(told.headers["traceparent"])


async def test_so_it_does_with_what_others_noted_of_a_good_trace(door: Door) -> None:
    noted = [("tracestate", "a=1, b=2"), ("tracestate", "c=3")]
    for given in (GIVEN, "nonsense"):
        await door.http.post("/v1/tasks", json=TASK, headers=[("traceparent", given), *noted])
    await door.http.post("/v1/tasks", json=TASK, headers=noted)
    leases = await door.queue.claim("w", 3, 10**9)
    states = [one.terms.trace and one.terms.trace.state for one in leases]
    assert sorted(map(str, states)) == ["", "", "a=1,b=2,c=3"]
