"""What the list of models says of the model."""

from __future__ import annotations

from forebay.api.services import DoorSettings
from tests.admission.pictures import picture
from tests.api.door import MODEL, data_url, open_door, working


async def test_the_visual_tokens_of_the_list_are_those_that_pictures_are_priced_by(door):
    (told,) = (
        one["visual_tokens"]
        for one in (await door.http.get("/v1/models")).json()["data"]
        if one["id"] == MODEL
    )
    assert told == {"512x512": 324, "1024x1024": 1369, "2048x2048": 1369}
    async with working(door):
        for size, tokens in told.items():
            side = int(size.partition("x")[0])
            image = data_url(picture(size=(side, side)))
            before = admitted(door)
            answer = await door.http.post("/v1/infer", json={"image": image, "prompt": "What?"})
            assert answer.status_code == 200
            assert admitted(door) - before == tokens


def admitted(door) -> float:
    name, labels = "forebay_admitted_tokens_total", {"kind": "visual"}
    return door.services.metrics.registry.get_sample_value(name, labels) or 0.0


async def test_they_follow_the_size_at_which_pictures_are_stored(redis, tmp_path, decoders):
    settings = DoorSettings(image_side=512)
    async with open_door(redis, tmp_path, decoders, settings=settings) as door:
        told = (await door.http.get(f"/v1/models/{MODEL}")).json()["visual_tokens"]
    assert set(told.values()) == {324}
