"""Rendering is that of transformers, and the template's code is kept in its sandbox."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import transformers

from forebay.core.errors import InvalidRequestError
from forebay.core.request import ImagePart, Message, Role, TextPart
from forebay.models.chat_template import ChatTemplate
from forebay.models.tokenizer import TextTokenizer
from tests.checkpoints import CHAT_TEMPLATE, write_checkpoint

NEWER = """[gMASK]<sop>
{%- macro visible_text(content) -%}
    {%- if content is string -%}
        {{- content }}
    {%- elif content is iterable and content is not mapping -%}
        {%- set ns = namespace(image_seen=false) -%}
        {%- for item in content -%}
            {%- if item is mapping and item.type == 'text' -%}
                {{- item.text }}
            {%- elif item is mapping and (item.type == 'image' or 'image' in item) -%}
                <|begin_of_image|><|image|><|end_of_image|>
                {%- set ns.image_seen = true -%}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro -%}
{%- for m in messages %}
{%- if m.role == 'user' %}<|user|>
{{ visible_text(m.content) }}
{%- elif m.role == 'assistant' %}
<|assistant|>
{%- set content = visible_text(m.content) %}
{{ '<think></think>' + content.split('</think>')[-1].strip() }}
{%- elif m.role == 'system' %}
<|system|>
{{ visible_text(m.content) }}
{%- endif %}
{%- if loop.last %}{% continue %}{% endif %}
{%- endfor %}
{%- if add_generation_prompt -%}
<|assistant|>{{ '\\n<think></think>' if (enable_thinking is defined and not enable_thinking) else '' }}
{%- endif -%}"""  # noqa: E501

IMAGE = ImagePart("a" * 64, 10, 10)
CONVERSATIONS = {
    "text": (Message(Role.USER, (TextPart("你好"),)),),
    "picture and text": (Message(Role.USER, (IMAGE, TextPart(" 价格?\n"))),),
    "several turns": (
        Message(Role.SYSTEM, (TextPart("Be short."),)),
        Message(Role.USER, (TextPart("first "), IMAGE, IMAGE, TextPart("<b>&'\""))),
        Message(Role.ASSISTANT, (TextPart("红色"),)),
        Message(Role.USER, (TextPart("why? {{ 7 * 7 }}"),)),
    ),
}


def as_hugging_face(message: Message) -> dict:
    if all(isinstance(part, TextPart) for part in message.parts):
        return {"role": message.role.value, "content": "".join(p.text for p in message.parts)}
    parts = [
        {"type": "text", "text": part.text} if isinstance(part, TextPart) else {"type": "image"}
        for part in message.parts
    ]
    return {"role": message.role.value, "content": parts}


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, NEWER], ids=["glm-4.1v", "glm-4.6v"])
@pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=CONVERSATIONS.keys())
def test_rendering_is_that_of_transformers(
    tmp_path: Path, template: str, messages: tuple[Message, ...]
) -> None:
    folder = write_checkpoint(tmp_path)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    chat = [as_hugging_face(message) for message in messages]
    expected = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    rendered = ChatTemplate.from_folder(folder).render(messages)
    assert rendered == expected
    ours = TextTokenizer.from_folder(folder).encode(rendered)
    assert ours == tokenizer(expected, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("named", [False, True], ids=["one", "named"])
def test_a_template_inside_tokenizer_config_is_found(tmp_path: Path, named: bool) -> None:
    source = "{% for m in messages %}{{ m.content }}{% endfor %}!"
    stored = [{"name": "default", "template": source}] if named else source
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": stored}))
    assert ChatTemplate.from_folder(tmp_path).render(CONVERSATIONS["text"]) == "你好!"


def render(tmp_path: Path, source: str) -> str:
    (tmp_path / "chat_template.jinja").write_text(source, encoding="utf-8")
    return ChatTemplate.from_folder(tmp_path).render(CONVERSATIONS["text"])


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__class__.__init__.__globals__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='system') }}",
    ],
)
def test_a_template_cannot_leave_its_sandbox(tmp_path: Path, source: str) -> None:
    with pytest.raises(InvalidRequestError, match="template"):
        render(tmp_path, source)


def test_a_template_s_own_refusal_reaches_the_client(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="only two turns"):
        render(tmp_path, "{{ raise_exception('only two turns') }}")


def test_templates_may_ask_for_the_date_and_for_json(tmp_path: Path) -> None:
    rendered = render(tmp_path, "{{ strftime_now('%Y') }} {{ messages[0] | tojson }}")
    year, encoded = rendered.split(" ", 1)
    assert int(year) > 2024
    assert json.loads(encoded) == {"role": "user", "content": "你好"}
    assert "你好" in encoded
