"""Lists as CSV, for spreadsheets."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final

from fastapi import Query
from starlette.responses import Response

from forebay.api.admin_deeds import private

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What a spreadsheet takes for a formula's beginning, some the wide letters too; a tenant's name is
no formula."""


TABLE_DOCS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"text/csv": {"schema": {"type": "string"}}}}
}
"""The ``responses`` of a route that answers a table, too."""


class Format(StrEnum):
    """How a list is answered."""

    JSON = "json"
    CSV = "csv"


FormatOf = Annotated[Format, Query()]


def listed(content: Mapping[str, Any], columns: Sequence[str], form: Format, name: str) -> Response:
    """Return a list's object, or its ``data`` as a table with these columns."""
    if form is Format.JSON:
        return private(dict(content))
    return table(columns, ([one.get(key) for key in columns] for one in content["data"]), name)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], name: str) -> Response:
    """Return a table to be kept as a file of that name."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in rows)
    headers = {
        "Cache-Control": "no-store",
        "Content-Disposition": f'attachment; filename="{name}.csv"',
    }
    return Response(text.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    if isinstance(value, Mapping | list):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return "" if value is None else value
