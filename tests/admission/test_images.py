"""Pictures are decoded in processes that can be killed; what comes out is plain and small."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import struct
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest
from PIL import Image, ImageStat

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
    return [
        child for child in psutil.Process().children() if "decoder" in " ".join(child.cmdline())
    ]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
async def test_every_accepted_format_keeps_its_colours(pool, form):
    assert close(middle(await normalised(pool, picture(form))), (200, 30, 30))


@pytest.mark.parametrize("size", [(3000, 2000), (1025, 7), (2001, 1999)])
async def test_a_large_picture_has_its_longest_side_at_the_limit(pool, size):
    image = await normalised(pool, picture(size=size))
    assert max(image.size) == 1024
    assert (await normalised(pool, picture("PNG", size=size), side=512)).width == 512


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
        with pytest.raises(InvalidImageError, match="takes longer than"):
            await normalised(pool, picture())
        assert not stuck.is_running()
        assert pool.kills == 1
        await normalised(pool, picture())


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
    content = picture("PNG", size=(12_000, 12_000), mode="L", colour=1)
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
