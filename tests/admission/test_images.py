"""Pictures are decoded in processes that can be killed; what comes out is plain and small."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import signal
import struct
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest
from PIL import Image, ImageOps, ImageStat

from forebay.admission.content import Base64Content
from forebay.admission.cost import price_picture
from forebay.admission.header import read_header
from forebay.admission.images import ImageNormaliser
from forebay.admission.policy import Limits, Load, Shed, decide
from forebay.admission.pool import DecoderPool, PoolLimits
from forebay.core.errors import ForebayError, InvalidImageError, QueueFullError
from forebay.core.image_grid import GridRules
from forebay.core.request import Cost
from tests.admission.pictures import hostile, picture


@pytest.fixture
async def pool() -> AsyncIterator[DecoderPool]:
    async with DecoderPool(PoolLimits(processes=1)) as pool:
        yield pool


async def normalised(pool: DecoderPool, content: bytes, side: int = 1024) -> Image.Image:
    result = await ImageNormaliser(pool).normalise(content, read_header(content), side)
    image = Image.open(io.BytesIO(result.content))
    assert image.format == "JPEG"
    assert image.mode == "RGB"
    assert image.size == (result.width, result.height)
    return image


async def admitted(pool: DecoderPool, content: bytes) -> Image.Image:
    """Go the door's way: header, price, policy, and only then the decoder."""
    price = price_picture(read_header(content), 1024, GridRules())
    decision = decide([price], Cost(1, 1, 1), Load(), Limits(context_tokens=4096))
    if isinstance(decision, Shed):
        raise decision.error
    return await normalised(pool, content)


def middle(image: Image.Image) -> tuple[int, ...]:
    return image.getpixel((image.width // 2, image.height // 2))  # type: ignore[return-value]


def close(one: Any, other: Any) -> bool:
    return all(abs(a - b) <= 6 for a, b in zip(one, other, strict=True))


def decoders() -> list[psutil.Process]:
    alive = [  # what an earlier test left unfetched has no command line
        child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE
    ]
    return [child for child in alive if "decoder" in " ".join(child.cmdline())]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
async def test_every_accepted_format_keeps_its_colours(pool, form):
    assert close(middle(await normalised(pool, picture(form))), (200, 30, 30))


@pytest.mark.parametrize("size", [(3000, 2000), (1025, 7), (2001, 1999)])
async def test_a_large_picture_has_its_longest_side_at_the_limit(pool, size):
    image = await normalised(pool, picture(size=size))
    assert max(image.size) == 1024
    assert (await normalised(pool, picture("PNG", size=size), side=512)).width == 512


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
async def test_every_orientation_is_set_upright(pool, form, orientation):
    painted = Image.new("RGB", (160, 80), "white")
    painted.paste((200, 30, 30), (0, 0, 40, 40))  # a red corner tells how it lies
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    painted.save(out, form, exif=exif.tobytes())
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(out.getvalue())))
    image = await normalised(pool, out.getvalue())
    assert image.size == upright.size
    for corner in ((5, 5), (image.width - 6, 5), (5, image.height - 6)):
        assert close(image.getpixel(corner), upright.convert("RGB").getpixel(corner))


@pytest.mark.parametrize("exif", [b"Exif\x00\x00" + b"\xff" * 40, b"Exif\x00\x00II*\x00\xff\xff"])
async def test_damaged_metadata_is_no_reason_to_refuse_a_picture(pool, exif):
    assert close(middle(await normalised(pool, picture(exif=exif))), (200, 30, 30))


async def test_exif_orientation_is_applied_and_metadata_dropped(pool):
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "where I live"
    image = await normalised(pool, picture(size=(2400, 1200), exif=exif.tobytes()))
    assert image.size == (512, 1024)
    assert not image.getexif()


async def test_transparency_lies_on_white(pool):
    clear = picture("PNG", mode="RGBA", colour=(0, 0, 0, 0))
    assert close(middle(await normalised(pool, clear)), (255, 255, 255))
    half = picture("PNG", mode="LA", colour=(0, 128))
    assert close(middle(await normalised(pool, half)), (127, 127, 127))
    palette = picture("GIF", mode="P", colour=1, transparency=1)
    assert close(middle(await normalised(pool, palette)), (255, 255, 255))


async def test_cmyk_and_sixteen_bits_are_understood(pool):
    assert middle(await normalised(pool, picture(mode="CMYK", colour=(255, 0, 0, 0))))[0] < 60
    grey = await normalised(pool, picture("PNG", mode="I;16", colour=32_768))
    assert close(middle(grey), (128, 128, 128))


async def test_of_an_animation_the_first_frame_is_taken(pool):
    frames = [Image.new("RGB", (30, 30), colour) for colour in ("blue", "red")]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    assert ImageStat.Stat(await normalised(pool, out.getvalue())).mean[2] > 200


@pytest.mark.parametrize("name", hostile())
async def test_a_hostile_file_is_refused_and_the_next_picture_decoded(pool, name):
    with pytest.raises(ForebayError) as refused:
        await admitted(pool, hostile()[name])
    assert 400 <= refused.value.status < 500
    assert "object at" not in refused.value.message
    await normalised(pool, picture())


async def test_a_decoder_that_takes_too_long_is_killed_and_replaced():
    async with DecoderPool(PoolLimits(processes=1, job_timeout_s=0.5)) as pool:
        [stuck] = decoders()
        stuck.suspend()
        with pytest.raises(InvalidImageError, match="takes longer to decode than it may"):
            await normalised(pool, picture())
        assert not stuck.is_running()
        assert pool.kills == 1
        await normalised(pool, picture())


async def test_a_picture_that_takes_too_much_of_the_processor_is_refused_without_another_try():
    noise = io.BytesIO()
    Image.effect_noise((6000, 6000), 100).save(noise, "BMP")
    content = noise.getvalue()
    async with DecoderPool(PoolLimits(processes=1, job_cpu_s=0, job_timeout_s=60)) as pool:
        with pytest.raises(InvalidImageError, match="0 s of the processor"):
            await ImageNormaliser(pool).normalise(
                content, read_header(content), 6000, lossless=True
            )
        assert pool.kills == 1
        await normalised(pool, picture())


async def test_a_decoder_knows_no_secret_of_the_door(monkeypatch):
    monkeypatch.setenv("FOREBAY_WEBHOOK_SECRETS", "whsec_c2VjcmV0")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    async with DecoderPool(PoolLimits(processes=1)):
        [one] = decoders()
        known = set(one.environ())
    assert not [name for name in known if name.startswith(("FOREBAY", "AWS"))]


async def test_base64_is_decoded_where_the_picture_is(pool):
    letters = base64.b64encode(picture(size=(64, 48))).decode()
    content = Base64Content(letters)
    image = await ImageNormaliser(pool).normalise(content, read_header(content), 1024)
    assert (image.width, image.height) == (64, 48)
    broken = Base64Content(letters[:-8] + "!!!!" + letters[-4:])
    with pytest.raises(InvalidImageError, match="not valid base64"):
        await ImageNormaliser(pool).normalise(broken, read_header(broken), 1024)


class CountingPool(DecoderPool):
    """Counts its jobs."""

    jobs = 0

    async def run(self, head: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        self.jobs += 1
        return await super().run(head, body)


@pytest.fixture
async def counting() -> AsyncIterator[CountingPool]:
    async with CountingPool(PoolLimits(processes=2)) as pool:
        yield pool


async def test_the_same_picture_is_decoded_once_at_the_same_time_and_later(counting):
    images = ImageNormaliser(counting)
    content, other = picture(size=(600, 400)), picture(size=(600, 401))

    async def normalise(content: bytes, **wanted: Any) -> bytes:
        side = wanted.pop("side", 1024)
        return (await images.normalise(content, read_header(content), side, **wanted)).content

    results = await asyncio.gather(*(normalise(content) for _ in range(10)))
    assert counting.jobs == 1
    assert await normalise(content) == results[0]
    assert set(results) == {results[0]}
    assert counting.jobs == 1
    assert await normalise(other) != results[0]
    assert await normalise(content, side=100) != results[0]
    assert await normalise(content, lossless=True) != results[0]
    assert counting.jobs == 4


async def test_who_goes_away_takes_the_picture_from_nobody_who_waits_for_it_too(counting):
    images = ImageNormaliser(counting)
    content = picture("PNG", size=(3000, 3000))
    header = read_header(content)
    first, second = (asyncio.create_task(images.normalise(content, header, 1024)) for _ in range(2))
    await asyncio.sleep(0.02)
    first.cancel()
    assert (await second).width == 1024
    assert counting.jobs == 1
    assert counting.kills == 0


async def test_what_nobody_waits_for_any_more_is_given_up_and_can_be_asked_for_anew(counting):
    images = ImageNormaliser(counting)
    content = picture("PNG", size=(5000, 5000))
    header = read_header(content)
    gone = [asyncio.create_task(images.normalise(content, header, 1024)) for _ in range(3)]
    await asyncio.sleep(0.05)
    for one in gone:
        one.cancel()
    await asyncio.sleep(0)
    assert (await images.normalise(content, header, 1024)).width == 1024
    assert counting.jobs == 2
    assert counting.kills == 1


async def test_a_refusal_is_told_to_all_who_asked_and_is_not_kept(counting):
    images = ImageNormaliser(counting)
    content = picture(size=(400, 400), quality=95)[:1500]
    asked = [images.normalise(content, read_header(content), 1024) for _ in range(3)]
    told = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(one) for one in told} == {InvalidImageError}
    with pytest.raises(InvalidImageError):
        await images.normalise(content, read_header(content), 1024)
    assert counting.jobs == 2


async def test_what_is_kept_is_bounded_in_bytes_and_the_longest_unused_goes(counting):
    contents = [picture(size=(60, height)) for height in (40, 41, 42)]

    async def normalise(images: ImageNormaliser, content: bytes) -> int:
        image = await images.normalise(content, read_header(content), 1024)
        return len(image.content)

    sizes = [await normalise(ImageNormaliser(counting), content) for content in contents]
    images = ImageNormaliser(counting, kept_bytes=sum(sizes) - 1)
    counting.jobs = 0
    for at in (0, 1, 0, 2):  # the third has no room beside both; the second was used before
        await normalise(images, contents[at])
    assert counting.jobs == 3
    await normalise(images, contents[0])
    await normalise(images, contents[2])
    assert counting.jobs == 3
    await normalise(images, contents[1])
    assert counting.jobs == 4


async def test_a_decoder_that_was_killed_from_outside_costs_no_picture(pool):
    [victim] = decoders()
    victim.suspend()
    job = asyncio.create_task(normalised(pool, picture()))
    await asyncio.sleep(0.05)
    os.kill(victim.pid, signal.SIGKILL)
    await job


async def test_a_cancelled_job_does_not_answer_the_next_one(pool):
    job = asyncio.create_task(normalised(pool, picture("PNG", size=(4000, 4000))))
    await asyncio.sleep(0.02)
    job.cancel()
    await asyncio.gather(job, return_exceptions=True)
    assert (await normalised(pool, picture(size=(64, 48)))).size == (64, 48)


async def test_a_picture_that_needs_too_much_memory_is_refused_by_the_process_limit():
    limits = PoolLimits(processes=1, memory_bytes=400 * 2**20)
    content = picture("PNG", size=(12_000, 12_000), colour=(1, 2, 3), compress_level=1)
    async with DecoderPool(limits) as pool:
        with pytest.raises(InvalidImageError):
            await normalised(pool, content)


async def test_bytes_that_wait_are_bounded():
    async with DecoderPool(PoolLimits(processes=1, waiting_bytes=10_000)) as pool:
        [slow] = decoders()
        slow.suspend()
        first = asyncio.create_task(normalised(pool, picture("BMP", size=(40, 40))))
        await asyncio.sleep(0.05)
        with pytest.raises(QueueFullError):
            await normalised(pool, picture("BMP", size=(60, 60)))
        slow.resume()
        await first


async def test_a_size_that_contradicts_the_header_is_refused(pool):
    content = bytearray(picture("PNG", size=(64, 48)))
    header = read_header(bytes(content))
    content[16:20] = struct.pack("!I", 65)
    with pytest.raises(InvalidImageError, match="cannot be decoded"):
        await ImageNormaliser(pool).normalise(bytes(content), header, 1024)


async def test_no_decoder_outlives_its_pool():
    async with DecoderPool(PoolLimits(processes=2)):
        started = decoders()
        assert len(started) == 2
    assert not any(one.is_running() for one in started)
