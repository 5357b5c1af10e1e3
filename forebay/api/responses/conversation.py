"""The items of a response's input, read into turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from forebay.api.chat_form import LOW_DETAIL_SIDE
from forebay.api.data_url import picture_in
from forebay.api.intake import Turn
from forebay.api.picture_urls import PictureUrl
from forebay.api.pictures import RawPicture
from forebay.api.responses.input_form import InputContent, InputImage, InputItem, InputMessage
from forebay.api.responses.tools_form import CallItem, ResultItem
from forebay.api.tools_form import read_call
from forebay.core.errors import InvalidRequestError
from forebay.core.request import Role


def conversation(items: Sequence[InputItem]) -> list[Turn]:
    """Return the turns: calls belong to the assistant's turn before them, where there is one.

    Raises:
        InvalidRequestError: a result is of no call, arguments are no object, or a picture cannot be
            read or is not a user's.
    """
    turns: list[Turn] = []
    called = set[str]()
    for at, item in enumerate(items):
        if isinstance(item, CallItem):
            called.add(item.call_id)
            _add_call(turns, item, at)
        elif isinstance(item, ResultItem):
            turns.append(_result(item, at, called))
        else:
            turns.append(_turn(item, at))
    return turns


def _add_call(turns: list[Turn], item: CallItem, at: int) -> None:
    call = read_call(item.call_id, item.name, item.arguments, f"input.{at}.arguments")
    before = turns.pop() if turns and turns[-1].role is Role.ASSISTANT else None
    turn = before or Turn(Role.ASSISTANT, ())
    turns.append(replace(turn, calls=(*turn.calls, call)))


def _result(item: ResultItem, at: int, called: set[str]) -> Turn:
    if item.call_id not in called:
        raise InvalidRequestError(
            "no call before this item has this id", param=f"input.{at}.call_id"
        )
    said = item.output if isinstance(item.output, str) else "".join(one.text for one in item.output)
    return Turn(Role.TOOL, (said,), call_id=item.call_id)


def _turn(message: InputMessage, index: int) -> Turn:
    role = Role.SYSTEM if message.role == "developer" else Role(message.role)
    if isinstance(message.content, str):
        return Turn(role, (message.content,))
    parts = (
        _part(part, role, f"input.{index}.content.{at}") for at, part in enumerate(message.content)
    )
    return Turn(role, tuple(parts))


def _part(part: InputContent, role: Role, param: str) -> str | RawPicture | PictureUrl:
    if not isinstance(part, InputImage):
        return part.text
    param = f"{param}.image_url"
    if role is not Role.USER:
        raise InvalidRequestError("only a user's message may hold a picture", param=param)
    side = LOW_DETAIL_SIDE if part.detail == "low" else None
    return picture_in(part.image_url, param, side=side)
