"""Requests that are wrong around the picture: base64, JSON, multipart, HTTP itself, URLs."""

from __future__ import annotations

import base64
import json
import string
from random import Random

from tests.hostile.attack import (
    PROMPT,
    SECRET,
    Attack,
    as_body,
    chat_of,
    in_json,
    post,
    post_json,
    post_parts,
    upload,
)
from tests.hostile.pictures import FORMATS, noise

JSON_PATHS = ("/v1/infer", "/v1/multimodal/inference", "/v1/tasks")
PATHS = ("/predict", "/v1/chat/completions", *JSON_PATHS)


def about_picture(image: str, rng: Random) -> bytes:
    """Return a request that names a picture by text, over any contract that does."""
    path = rng.choice((*JSON_PATHS, "/v1/chat/completions"))
    if path == "/v1/chat/completions":
        return post_json(path, chat_of(image))
    return post_json(path, {"image": image, "prompt": PROMPT})


def base64_garbage(rng: Random) -> Attack:
    """Letters that are none of base64's, or not enough of them, or of no picture."""
    letters = base64.b64encode(noise(rng.choice(FORMATS), rng)).decode()
    at = rng.randrange(100, len(letters) - 8)
    texts = {
        "noise": "".join(rng.choices(string.printable, k=rng.randrange(1, 3000))),
        "unicode": "".join(chr(rng.randrange(32, 0xD7FF)) for _ in range(rng.randrange(1, 500))),
        "hole": letters[:at] + rng.choice("!*?\\\x00é") + letters[at + 1 :],
        "url-safe": letters[:at] + "-_-_" + letters[at + 4 :],
        "padding inside": letters[: at - at % 4] + "QQ==" + letters[at - at % 4 :],
        "cut": letters[: at // 4 * 4 - rng.randrange(1, 4)],
        "cut in half": letters[: len(letters) // 8 * 4],
        "twice encoded": base64.b64encode(letters.encode()).decode(),
        "no comma": "data:image/png;base64" + letters,
        "no base64": "data:image/png," + letters,
        "percent": "data:image/png;base64," + letters.replace("A", "%41").replace("e", "%65"),
        "nested": "data:image/png;base64,data:image/png;base64," + letters,
        "nothing": rng.choice(("", "data:", "data:;base64,", "====", " \n\t ")),
        "spaces": " " * rng.randrange(1, 200_000) + "!",
        "surrogate": "\ud800" + letters,
    }
    name = rng.choice(sorted(texts))
    return Attack("base64", about_picture(texts[name], rng), about=name)


def json_garbage(rng: Random) -> Attack:
    """Bodies that are no JSON, or too much of it, or not what the contracts know."""
    deep = rng.randrange(1_000, 200_000)
    bodies = {
        "deep": b"[" * deep,
        "deep object": b'{"a":' * deep + b"1" + b"}" * deep,
        "wide": b'{"messages":[' + b"{}," * 300_000 + b"{}]}",
        "not json": rng.randbytes(rng.randrange(1, 5000)),
        "cut": json.dumps(chat_of("data:image/png;base64,AAAA")).encode()[: rng.randrange(1, 100)],
        "no object": rng.choice((b"[]", b"1", b"null", b'"x"', b"NaN", b"-")),
        "half a character": b'{"prompt": "\\ud800", "model": "glm-4v-flash", "messages": []}',
        "not utf-8": b'{"prompt": "\xff\xfe"}',
        "large number": b'{"prompt": "x", "max_tokens": ' + b"9" * rng.randrange(5, 6000) + b"}",
        "wrong type": json.dumps({"prompt": ["x"], "image": {"url": 1}, "messages": 7}).encode(),
        "nothing": b"",
        "null": b'{"prompt": null, "messages": null, "image": null}',
        "bomb of keys": json.dumps({f"k{i}": i for i in range(5_000)}).encode(),
        "image in the role": json.dumps(
            {"model": "glm-4v-flash", "messages": [{"role": SECRET, "content": "x"}]}
        ).encode(),
    }
    name = rng.choice(sorted(bodies))
    path = rng.choice([path for path in PATHS if path != "/predict"])
    return Attack("json", post(path, "application/json", bodies[name]), about=name)


def form_garbage(rng: Random) -> Attack:
    """Multipart bodies that do not hold together."""
    jpeg = noise("JPEG", rng)
    whole = upload("/predict")(jpeg)
    _, body = whole.split(b"\r\n\r\n", 1)
    kind = "multipart/form-data; boundary=" + "x" * 24
    text = ("prompt", None, PROMPT.encode())
    requests = {
        "no boundary": post("/predict", "multipart/form-data", body),
        "another boundary": post("/predict", "multipart/form-data; boundary=yyy", body),
        "long boundary": post("/predict", "multipart/form-data; boundary=" + "y" * 5000, body),
        "no part": post("/predict", kind, b"--" + b"x" * 24 + b"--\r\n"),
        "no header": post("/predict", kind, b"--" + b"x" * 24 + b"\r\n\r\nx\r\n"),
        "cut": post("/predict", kind, body[: rng.randrange(1, 200)]),
        "noise": post("/predict", kind, rng.randbytes(3000)),
        "no image": post_parts("/predict", [text]),
        "no prompt": post_parts("/predict", [("image", "a.jpg", jpeg)]),
        "empty image": post_parts("/predict", [text, ("image", "a.jpg", b"")]),
        "two images": post_parts("/predict", [text, *[("image", "a.jpg", jpeg)] * 2]),
        "many fields": post_parts("/predict", [("a", None, b"x")] * 2_000),
        "unknown field": post_parts("/predict", [text, ("image", "a", jpeg), (SECRET, None, b"")]),
        "wrong number": post_parts(
            "/predict", [text, ("image", "a", jpeg), ("max_tokens", None, b"-1e999")]
        ),
        "priority": post_parts("/predict", [text, ("image", "a", jpeg), ("priority", None, b"99")]),
        "a text as image": post_parts("/predict", [text, ("image", None, b"hello")]),
        "too large": post("/predict", kind, b"", length=10**12),
        "another type": post("/v1/infer", rng.choice(("text/html", "a/b", "\xff/\xfe")), body),
    }
    name = rng.choice(sorted(requests))
    return Attack("multipart", requests[name], about=name)


def http_garbage(rng: Random) -> Attack:
    """Bytes that a server of HTTP must not take for a request, or not for two."""
    end = b"\r\n\r\n"
    requests = {
        "noise": rng.randbytes(200).replace(b"\x16", b"x") + end,
        "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(100) + end,
        "no version": b"GET /predict\r\n\r\n",
        "method": b"BREW /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close" + end,
        "unknown path": b"GET /../../etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close"
        + end,
        "null in path": b"GET /\x00 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close" + end,
        "negative length": b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -5" + end,
        "word as length": b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: ten" + end,
        "two lengths": b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n"
        b"Content-Length: 6" + end + b"hello",
        "length and chunks": b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked"
        + end
        + b"0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: 127.0.0.1"
        + end,
        "bad chunk": b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked"
        + end
        + b"zz\r\nhello\r\n0\r\n\r\n",
        "wrong method": b"GET /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close" + end,
    }
    name = rng.choice(sorted(requests))
    return Attack("http", requests[name], about=name)


def slow_upload(rng: Random) -> Attack:
    """A body that begins and does not go on."""
    whole = rng.choice((upload("/predict"), as_body, in_json("/v1/infer")))(noise("PNG", rng))
    head = whole.index(b"\r\n\r\n") + 4
    return Attack("slow upload", whole[: rng.randrange(head, len(whole) - 1)], stalls=True)
