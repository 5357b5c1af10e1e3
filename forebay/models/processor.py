"""From a picture to the patches that the vision tower takes.

Source: the PIL image processors of Glm4v and Glm46V in Hugging Face ``transformers``. A still
picture's pixels are kept once: the reference duplicates them along time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from forebay.core.image_grid import GridRules, smart_resize
from forebay.models.errors import CorruptFileError
from forebay.models.files import read_json, require_file

Patches = npt.NDArray[np.float32]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True)
class ImageProcessor:
    """Resizes, scales, normalises and cuts a picture as ``preprocessor_config.json`` says."""

    rules: GridRules
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    rescale_factor: float = 1 / 255
    resample: int = int(Image.Resampling.BICUBIC)

    @classmethod
    def from_folder(cls, folder: Path) -> ImageProcessor:
        """Read ``preprocessor_config.json`` of a checkpoint folder.

        Raises:
            MissingFileError, CorruptFileError: naming the file.
        """
        path = require_file(folder, "preprocessor_config.json")
        raw = read_json(path)
        try:
            return cls(
                rules=GridRules.from_preprocessor(raw),
                mean=tuple(float(x) for x in raw.get("image_mean", CLIP_MEAN)),
                std=tuple(float(x) for x in raw.get("image_std", CLIP_STD)),
                rescale_factor=float(raw.get("rescale_factor", 1 / 255)),
                resample=int(raw.get("resample", Image.Resampling.BICUBIC)),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CorruptFileError(path, f"a field is missing or wrong: {error}") from error

    def patches(self, picture: Image.Image) -> tuple[Patches, tuple[int, int]]:
        """Return the picture's patches [rows * columns, 3 * patch * patch] and its (rows, columns).

        The patches of one visual token lie side by side (merge order).
        """
        rgb = picture if picture.mode == "RGB" else picture.convert("RGB")
        height, width = smart_resize(rgb.height, rgb.width, self.rules)
        if (width, height) != rgb.size:
            rgb = rgb.resize((width, height), Image.Resampling(self.resample))
        cut, grid = self._cut(np.asarray(rgb, dtype=np.uint8))
        # one multiply-add a pixel: (x * rescale - mean) / std
        values = cut.shape[1] // len(self.std)
        scale = np.repeat(self.rescale_factor / np.asarray(self.std), values).astype(np.float32)
        shift = np.repeat(np.asarray(self.mean) / np.asarray(self.std), values).astype(np.float32)
        patches = np.multiply(cut, scale, dtype=np.float32)
        patches -= shift
        return patches, grid

    def _cut(self, pixels: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
        patch, merge = self.rules.patch_size, self.rules.merge_size
        rows, columns = pixels.shape[0] // patch, pixels.shape[1] // patch
        planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))  # then a patch's rows are runs
        cells = planes.reshape(3, rows // merge, merge, patch, columns // merge, merge, patch)
        ordered = cells.transpose(1, 4, 2, 5, 0, 3, 6)
        return np.ascontiguousarray(ordered).reshape(rows * columns, -1), (rows, columns)
