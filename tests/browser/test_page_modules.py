"""The page's modules by themselves, in a real browser."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from forebay.admission.header import fitted_size
from forebay.core.image_grid import GridRules, smart_resize, visual_tokens
from tests.browser.static_page import open_static

pytestmark = pytest.mark.browser

RULES = (
    GridRules(),
    GridRules(patch_size=7, merge_size=4, min_pixels=25088, max_pixels=39200),
    GridRules(patch_size=14, merge_size=2, min_pixels=12544, max_pixels=9633792),
    GridRules(patch_size=16, merge_size=2, temporal_patch_size=1, min_pixels=65536),
)
EDGES = (1, 2, 13, 14, 15, 27, 28, 29, 42, 70, 98, 1023, 1024, 1025, 1026, 2048, 4032, 8000)


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    page = open_static(browser)
    yield page
    page.context.close()


def call(page: Page, module: str, name: str, *arguments: Any) -> Any:
    script = """async ([module, name, given]) => (await import(`/ui/${module}`))[name](...given)"""
    return page.evaluate(script, [module, name, list(arguments)])


def sizes() -> list[tuple[int, int]]:
    draw = random.Random(20)
    even = [(width, height) for width in EDGES for height in EDGES]
    odd = [(draw.randint(1, 9000), draw.randint(1, 9000)) for _ in range(1500)]
    long = [(draw.randint(1, 40), draw.randint(1, 9000)) for _ in range(300)]
    halves = [(14 * draw.randrange(1, 400, 2), 14 * draw.randrange(1, 400, 2)) for _ in range(300)]
    return [*even, *odd, *long, *halves]


def priced(size: tuple[int, int], side: int, rules: GridRules) -> list[int] | None:
    width, height = fitted_size(*size, side)
    try:
        seen = smart_resize(height, width, rules)
        return [width, height, seen[1], seen[0], visual_tokens(height, width, rules)]
    except ValueError:
        return None


PRICE = """async ([sizes, side, grid]) => {
    const {storedSize, seenSize, visualTokens} = await import("/ui/grid.js");
    return sizes.map(([width, height]) => {
        const stored = storedSize({width, height}, side);
        const seen = seenSize(stored, grid);
        return seen && [stored.width, stored.height, seen.width, seen.height,
            visualTokens(stored, grid)];
    });
}"""


@pytest.mark.parametrize("rules", RULES, ids=lambda rules: f"{rules.factor}-{rules.max_pixels}")
@pytest.mark.parametrize("side", [28, 1000, 1024, 2048])
def test_the_page_prices_every_picture_as_the_server_does(
    page: Page, rules: GridRules, side: int
) -> None:
    wanted = [priced(size, side, rules) for size in sizes()]
    assert page.evaluate(PRICE, [sizes(), side, asdict(rules)]) == wanted
    assert (None in wanted) == (side > 200), "some are too long to be seen"


THOUGHTS = [
    ("plain words", ("", "plain words")),
    ("<think>it is red</think>Red.", ("it is red", "Red.")),
    ("  <think>\nit is red\n</think>\n\nRed.", ("it is red", "Red.")),
    ("it is red</think>Red.", ("it is red", "Red.")),
    ("<think>hm</think><answer>Red.</answer>", ("hm", "Red.")),
    ("<think>never ends", ("never ends", "")),
    ("a < b and <b", ("", "a < b and <b")),
]


@pytest.mark.parametrize(("text", "parts"), THOUGHTS)
def test_what_is_thought_is_told_from_what_is_said(
    page: Page, text: str, parts: tuple[str, str]
) -> None:
    found = call(page, "thinking.js", "partsOf", text, True)
    assert (found["thought"], found["said"]) == parts


def test_no_half_of_a_mark_is_shown_while_an_answer_comes(page: Page) -> None:
    text = "<think>is it red</think>It is <|begin_of_box|>red<|end_of_box|>, surely."
    script = """async (text) => {
        const {partsOf} = await import("/ui/thinking.js");
        const {withoutMarks} = await import("/ui/boxes.js");
        return [...text].map((_, end) => {
            const {thought, said} = partsOf(text.slice(0, end), false);
            return thought + withoutMarks(said, false).replace(/<\\/?mark>/g, "");
        });
    }"""
    for shown in page.evaluate(script, text):
        assert not set(shown) & set("<>|_"), shown


BOXES = [
    ("<|begin_of_box|>[[10,20,300,400]]<|end_of_box|>", [(10, 20, 300, 400, "")]),
    ("at [ 1, 2.5 , 30,40 ] and [50,50,99,1000]", [(1, 2.5, 30, 40, ""), (50, 50, 99, 1000, "")]),
    ('[{"bbox_2d": [1, 2, 30, 40], "label": "a \\"tag\\""}]', [(1, 2, 30, 40, 'a "tag"')]),
    ('{"label": "瓶", "bbox_2d": [[0,0,999,999]]}', [(0, 0, 999, 999, "瓶")]),
    ("[[1,2,30,40]] again [1,2,30,40]", [(1, 2, 30, 40, "")]),
    ("from [1, 2, 3, 4] or [300,400,10,20] or [1,2,3000,4000] or [1,2,3]", []),
]  # fmt: skip


@pytest.mark.parametrize(("text", "boxes"), BOXES)
def test_places_are_found_in_the_forms_that_models_write(
    page: Page, text: str, boxes: list[tuple[float, float, float, float, str]]
) -> None:
    found = call(page, "boxes.js", "boxesIn", text)
    assert [(one["x1"], one["y1"], one["x2"], one["y2"], one["label"]) for one in found] == boxes


HOSTILE = [
    "<script>window.hit = 1</script>",
    "<img src=x onerror='window.hit = 1'>",
    "![a](https://elsewhere.example/track.png)",
    "<svg onload='window.hit = 1'><circle/></svg>",
    "<iframe srcdoc='<script>parent.hit = 1</script>'></iframe>",
    "[click](javascript:window.hit=1)",
    "<a href='data:text/html,<script>1</script>'>x</a>",
    "<p style='position:fixed;inset:0' onclick='window.hit = 1' id='question'>cover</p>",
    "<form action='https://elsewhere.example'><input name=a><button>send</button></form>",
    "<math><mtext><table><mglyph><style><img src=x onerror=window.hit=1></style></table></math>",
    "<link rel=stylesheet href=https://elsewhere.example/x.css><base href=https://elsewhere.example>",
]

SHOW = """async (texts) => {
    const {rendered} = await import("/ui/markdown.js");
    const main = document.querySelector("#main");
    main.replaceChildren(...texts.map(rendered));
    for (const one of main.querySelectorAll("*")) {
        if (/^https?:/.test(one.href ?? "")) continue; // a link that one may follow
        one.target = "_self";
        one.click();
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
    const names = [...main.querySelectorAll("*")].flatMap((one) =>
        [one.localName, ...one.getAttributeNames().map((name) => "@" + name)]);
    return [window.hit ?? 0, [...new Set(names)], main.textContent];
}"""


def test_an_answer_can_run_nothing_load_nothing_and_cover_nothing(browser: Browser) -> None:
    page = open_static(browser)
    asked: list[str] = []
    faults: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
    hit, names, words = page.evaluate(SHOW, HOSTILE)
    assert hit == 0
    forbidden = {"script", "img", "svg", "iframe", "form", "input", "style", "link", "base", "math"}
    assert not forbidden & set(names)
    assert {name for name in names if name[0] == "@"} <= {"@href", "@target", "@rel", "@title"}
    assert "cover" in words
    assert not [url for url in asked if "elsewhere" in url]
    assert faults == []
    page.context.close()


def test_markdown_is_written_as_it_is_meant(page: Page) -> None:
    script = """async (text) => {
        const {rendered} = await import("/ui/markdown.js");
        const box = document.createElement("div");
        box.append(rendered(text));
        return [...box.querySelectorAll("*")].map((one) => one.localName);
    }"""
    text = "# A\n\n- **b**\n- `c`\n\n| x | y |\n|---|---|\n| 1 | 2 |\n\n```\nd\n```\n<mark>e</mark>"
    assert set(page.evaluate(script, text)) == {
        *("h1", "ul", "li", "strong", "code", "div", "table", "thead", "tbody", "tr", "th", "td"),
        *("pre", "p", "mark"),
    }


NASTY = "Is $HOME `id` \"dear\" or 'cheap'? \\n $(id) 价格\nEOF JSON"


def body(pictures: list[str]) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": url}} for url in pictures
    ]
    content = [*parts, {"type": "text", "text": NASTY}] if parts else NASTY
    return {"model": "m", "messages": [{"role": "user", "content": content}]}


@pytest.mark.parametrize("named", [[], ["a b'$(id).jpg"], ["图.png", "https://host/x.jpg"]])
def test_a_copied_command_sends_the_very_question(
    page: Page, tmp_path: Path, named: list[str]
) -> None:
    """A shell runs it, with a ``curl`` that shows what it would send."""
    pictures = []
    urls = []
    for name in named:
        far = name.startswith("https:")
        pictures.append({"name": "x.jpg" if far else name, "url": name if far else ""})
        if far:
            urls.append(name)
            continue
        (tmp_path / name).write_bytes(b"\x00\xff" * 100_000)
        kind = "image/png" if name.endswith(".png") else "image/jpeg"
        data = subprocess.run(
            ["base64", "-w0", name], cwd=tmp_path, capture_output=True, check=True
        )
        urls.append(f"data:{kind};base64,{data.stdout.decode()}")
    wanted = {
        "base": "http://host/v1", "model": "m", "question": NASTY, "pictures": pictures,
        "kind": "ask", "keyed": True,
    }  # fmt: skip
    command = call(page, "code.js", "asCurl", wanted)
    curl = tmp_path / "bin" / "curl"
    curl.parent.mkdir()
    curl.write_text('#!/bin/sh\nfor one in "$@"; do echo "$one" >> said; done\ncat > sent\n')
    curl.chmod(0o755)
    path = f"{curl.parent}{os.pathsep}{os.environ['PATH']}"
    env = {"PATH": path, "FOREBAY_API_KEY": "fb_secret", "HOME": "/nowhere"}
    subprocess.run(["sh", "-euc", command], cwd=tmp_path, env=env, check=True)
    assert json.loads((tmp_path / "sent").read_text()) == body(urls)
    said = (tmp_path / "said").read_text().splitlines()
    assert "http://host/v1/chat/completions" in said
    assert "Authorization: Bearer fb_secret" in said
    assert "fb_secret" not in command


def test_a_copied_program_is_one(page: Page) -> None:
    for kind in ("ask", "review"):
        for pictures in (
            [],
            [{"name": 'a"b.png', "url": ""}],
            [{"name": "x", "url": "https://h/x"}],
        ):
            wanted = {
                "base": "http://host/v1", "model": "m", "question": NASTY, "pictures": pictures,
                "kind": kind, "keyed": False,
            }  # fmt: skip
            program = call(page, "code.js", "asPython", wanted)
            compile(program, "copied.py", "exec")
            assert json.dumps(NASTY, ensure_ascii=False) in program


PREPARE = """async ([width, height, type, side]) => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [width, height];
    const pen = canvas.getContext("2d");
    for (let at = 0; at < 400; at++) {
        pen.fillStyle = `hsl(${at * 37}deg 80% ${at % 90}%)`;
        pen.fillRect((at * 53) % width, (at * 91) % height, width / 9, height / 9);
    }
    const {blobOf, prepare} = await import("/ui/shrink.js");
    const file = await blobOf(canvas, type);
    const {blob, size} = await prepare(file, side);
    const seen = await createImageBitmap(blob);
    return [size.width, size.height, seen.width, seen.height, blob === file, blob.size < file.size];
}"""


@pytest.mark.parametrize("kind", ["image/jpeg", "image/png", "image/webp"])
@pytest.mark.parametrize("size", [(3000, 2000), (1025, 7), (2500, 640)])
def test_a_large_picture_gets_the_pixels_that_the_server_would_give_it(
    page: Page, kind: str, size: tuple[int, int]
) -> None:
    width, height, sent_width, sent_height, same, smaller = page.evaluate(
        PREPARE, [*size, kind, 1024]
    )
    assert (width, height) == fitted_size(*size, 1024)
    if not same:
        assert (sent_width, sent_height) == (width, height)
        assert smaller


def test_a_small_picture_is_sent_as_it_is_and_a_strange_one_is_written_anew(
    page: Page, tmp_path: Path
) -> None:
    assert page.evaluate(PREPARE, [800, 600, "image/png", 1024])[4] is True
    file = tmp_path / "a.avif"
    Image.new("RGB", (300, 200), "teal").save(file)
    script = """async (bytes) => {
        const {prepare} = await import("/ui/shrink.js");
        const made = await prepare(new Blob([new Uint8Array(bytes)], {type: "image/avif"}), 1024);
        return made && [made.blob.type, made.size.width, made.size.height];
    }"""
    assert page.evaluate(script, list(file.read_bytes())) == ["image/png", 300, 200]
    assert page.evaluate(script, list(b"no picture at all")) is None


def test_a_photograph_on_its_side_is_set_upright(page: Page, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = tmp_path / "a.jpg"
    Image.new("RGB", (2000, 1000), "teal").save(file, exif=exif)
    script = """async (bytes) => {
        const {prepare} = await import("/ui/shrink.js");
        const made = await prepare(new Blob([new Uint8Array(bytes)], {type: "image/jpeg"}), 1024);
        const seen = await createImageBitmap(made.blob);
        return [made.size.width, made.size.height, seen.width, seen.height];
    }"""
    assert page.evaluate(script, list(file.read_bytes())) == [512, 1024, 512, 1024]


FILL = """async ([count, bytes]) => {
    const {Entries} = await import("/ui/entries.js");
    const entries = new Entries();
    await entries.clear();
    for (let at = 1; at <= count; at++) {
        const blob = bytes ? new Blob([new Uint8Array(bytes)]) : null;
        const outcome = {askedAt: at, text: ""};
        const pictures = [{name: "a", url: "", blob}];
        await entries.put({id: String(at), question: `q${at}`, pictures, outcome});
    }
    return (await entries.list()).map((entry) => entry.question);
}"""


def test_history_keeps_the_newest_hundred_and_no_more_bytes_than_it_may(page: Page) -> None:
    kept = page.evaluate(FILL, [104, 0])
    assert kept == [f"q{at}" for at in range(104, 4, -1)]
    heavy = page.evaluate(FILL, [5, 20 * 2**20])
    assert heavy == ["q5", "q4", "q3"]
