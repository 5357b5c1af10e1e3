"""The usual way to put a queue before a model: Flask's own server, a file, a list in Redis.

``/predict`` stores the upload as a file, writes down that its task is pending, and pushes the task
to the list that workers pop from. No check of the picture, no bound, no sync to the disk. The
server is Flask's own with a thread for each request, as tutorials start it.
"""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

import redis
from flask import Flask, jsonify, request

app = Flask(__name__)
queue = redis.Redis.from_url(os.environ["QUEUE_URL"])
uploads = Path(os.environ["UPLOADS"])

RESULT_TTL_S = 3600


@app.get("/health")  # type: ignore[untyped-decorator]  # the package is not installed here
def health() -> str:
    """Answer once Redis does."""
    queue.ping()
    return "ok"


@app.post("/predict")  # type: ignore[untyped-decorator]
def predict() -> Any:
    """Take a picture and a question into the queue."""
    image, prompt = request.files.get("image"), request.form.get("prompt")
    if not image or not prompt:
        return jsonify({"error": "Missing image or prompt"}), 400
    task_id = str(uuid.uuid4())
    path = uploads / f"{task_id}.jpg"
    image.save(path)
    queue.set(f"result:{task_id}", json.dumps({"status": "pending"}), ex=RESULT_TTL_S)
    task = {"task_id": task_id, "image": str(path), "prompt": prompt}
    queue.lpush("glm_tasks", json.dumps(task))
    return jsonify({"status": "submitted", "task_id": task_id, "message": "Task accepted"})


app.run(host="127.0.0.1", port=int(os.environ["PORT"]))
