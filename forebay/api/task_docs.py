"""How ``POST /v1/tasks`` is described to readers and to tools: it reads its body itself."""

from __future__ import annotations

from typing import Any, Final

from forebay.api.preferences import KEY_HEADER
from forebay.api.route_docs import form_body, header_fields, inlined_properties, json_body
from forebay.api.task_form import TaskForm

_FORM_FIELDS: Final = {
    **inlined_properties(TaskForm),
    "image": {"type": "array", "items": {"type": "string", "format": "binary"}},
}


def _bodies() -> dict[str, Any]:
    """Return the two forms of the body as one description."""
    forms = (json_body(TaskForm), form_body(_FORM_FIELDS, required=["prompt"]))
    content = {
        kind: schema for form in forms for kind, schema in form["requestBody"]["content"].items()
    }
    return {"required": True, "content": content}


NEW_TASK_DOCS: Final[dict[str, Any]] = {
    "requestBody": _bodies(),
    "parameters": header_fields(KEY_HEADER, "Prefer"),
}
