"""Flask's own server before ``transformers``: one request at a time, in the request's thread."""

from __future__ import annotations

import os

from flask import Flask, Response, jsonify, request

from bench.peer_servers.generation import Generator

app = Flask(__name__)
generator = Generator()


@app.get("/health")  # type: ignore[untyped-decorator]  # the package is not installed here
def health() -> str:
    """Answer once the model is loaded: it is loaded before the server listens."""
    return "ok"


@app.post("/v1/chat/completions")  # type: ignore[untyped-decorator]
def chat() -> Response:
    """Answer one request."""
    (answer,) = generator.answers([request.get_json()])
    return jsonify(answer)


app.run(host="127.0.0.1", port=int(os.environ["PORT"]), threaded=False)
