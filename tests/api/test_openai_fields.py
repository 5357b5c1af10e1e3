"""Nothing that a client asks for is silently ignored: it is done, or refused by its name."""

from __future__ import annotations

import pytest

from tests.api.door import MODEL, working
from tests.api.openai_rig import talking

BODIES = {
    "/v1/chat/completions": {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]},
    "/v1/completions": {"model": MODEL, "prompt": "hi"},
    "/v1/responses": {"model": MODEL, "input": "hi"},
}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}

ASKS_FOR_MORE = {
    "tools": [TOOL], "tool_choice": "required", "functions": [{"name": "f"}],
    "function_call": {"name": "f"}, "audio": {"voice": "alloy", "format": "wav"},
    "modalities": ["text", "audio"], "prediction": {"type": "content", "content": "x"},
    "logit_bias": {"5": 10}, "reasoning_effort": "high", "verbosity": "low",
    "web_search_options": {"search_context_size": "low"}, "service_tier": "flex",
    "echo": True, "suffix": "!", "best_of": 3, "use_beam_search": True, "length_penalty": 0.5,
    "skip_special_tokens": False, "add_generation_prompt": False, "continue_final_message": True,
    "chat_template": "{{ messages }}", "chat_template_kwargs": {"enable_thinking": True},
    "prompt_logprobs": 0, "previous_response_id": "resp_1", "conversation": "conv_1",
    "prompt": {"id": "pmpt_1"}, "truncation": "auto", "max_tool_calls": 1,
    "reasoning": {"effort": "low"}, "surprise": 1,
}  # fmt: skip
REFUSED = [
    (path, field)
    for path in BODIES
    for field in ASKS_FOR_MORE
    if (path, field) not in {("/v1/completions", "prompt"), ("/v1/responses", "tools")}
]

ASKS_FOR_NOTHING = {
    "tools": [], "tool_choice": "auto", "functions": None, "function_call": "none",
    "modalities": ["text"], "prediction": None, "logit_bias": {}, "verbosity": "medium",
    "service_tier": "auto", "echo": False, "suffix": None, "best_of": 1,
    "use_beam_search": False, "length_penalty": 1.0, "skip_special_tokens": True,
    "add_generation_prompt": True, "continue_final_message": False, "chat_template_kwargs": {},
    "previous_response_id": None, "truncation": "disabled", "parallel_tool_calls": True,
    "user": "me", "safety_identifier": "me", "prompt_cache_key": "k", "metadata": {"a": "b"},
    "store": False,
}  # fmt: skip


@pytest.mark.parametrize(("path", "field"), REFUSED)
async def test_what_is_not_done_is_a_400_that_names_it(door, path, field):
    refused = await door.http.post(path, json={**BODIES[path], field: ASKS_FOR_MORE[field]})
    assert refused.status_code == 400, refused.text
    assert refused.json()["error"]["param"] == field
    assert await door.waiting() == 0


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_to_be_stored_is_refused_where_nothing_is(door, path):
    refused = await door.http.post(path, json={**BODIES[path], "store": True})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "store"


@pytest.mark.parametrize("path", BODIES)
async def test_a_field_at_the_value_that_asks_for_nothing_passes(door, path):
    async with working(door):
        answer = await door.http.post(path, json={**ASKS_FOR_NOTHING, **BODIES[path]})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("path", BODIES)
async def test_options_of_a_stream_need_a_stream(door, path):
    body = {**BODIES[path], "stream_options": {}}
    refused = await door.http.post(path, json=body)
    assert refused.json()["error"]["param"] == "stream_options"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_the_metadata_is_given_back_with_the_task(door, path):
    async with working(door):
        body = {**BODIES[path], "metadata": {"order": "7"}}
        answer = await door.http.post(path, json=body)
    task = await door.http.get(f"/v1/tasks/{answer.headers['X-Forebay-Task-Id']}")
    assert task.json()["metadata"] == {"order": "7"}


@pytest.mark.parametrize(
    ("path", "field", "value", "param"),
    [
        ("/v1/completions", "prompt", [1, 2, 3], "prompt"),
        ("/v1/completions", "prompt", [[1, 2], [3]], "prompt"),
        ("/v1/completions", "prompt", "", "prompt"),
        ("/v1/completions", "prompt", [], "prompt"),
        ("/v1/completions", "logprobs", 21, "logprobs"),
        ("/v1/completions", "n", 9, "n"),
        ("/v1/completions", "max_completion_tokens", 5, "max_completion_tokens"),
        ("/v1/responses", "max_output_tokens", 10**6, "max_output_tokens"),
        ("/v1/responses", "max_tokens", 5, "max_tokens"),
        ("/v1/responses", "include", ["file_search_call.results"], "include.0"),
        ("/v1/responses", "top_logprobs", 2, "include"),
        ("/v1/responses", "store", "yes", "store"),
        ("/v1/responses", "input", [{"type": "item_reference", "id": "x"}], "input.0"),
        (
            "/v1/responses",
            "input",
            [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}],
            "input.0.content.0",
        ),
        ("/v1/responses", "text", {"format": {"type": "json_schema"}}, "text.format"),
        (
            "/v1/responses",
            "text",
            {"format": {"type": "json_schema", "schema": {"not": {}}}},
            "text.format",
        ),
        ("/v1/responses", "text", {"verbosity": "high"}, "text.verbosity"),
    ],
)
async def test_a_value_that_cannot_be_is_a_400_that_names_its_field(
    door, path, field, value, param
):
    refused = await door.http.post(path, json={**BODIES[path], field: value})
    assert refused.status_code == 400, refused.text
    assert refused.json()["error"]["param"].startswith(param)
    assert await door.waiting() == 0


async def test_a_stream_of_several_prompts_is_refused(door):
    body = {"model": MODEL, "prompt": ["a", "b"], "stream": True}
    refused = await door.http.post("/v1/completions", json=body)
    assert refused.json()["error"]["param"] == "prompt"


async def test_a_background_response_that_is_not_stored_is_refused(door):
    body = {"model": MODEL, "input": "hi", "background": True, "store": False}
    refused = await door.http.post("/v1/responses", json=body)
    assert refused.json()["error"]["param"] == "store"


async def test_the_client_sees_the_name_of_what_is_refused(door):
    async with talking(door) as client:
        with pytest.raises(Exception, match="tools") as refused:
            await client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "hi"}], tools=[TOOL]
            )
    assert refused.value.param == "tools"
