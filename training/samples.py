"""Draws the sample requests of the demo: ``python -m training.samples``. Nothing is selected."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from training.evaluate import SKILLS, case
from training.lists import Language

SEED = 2 * 10**9
EACH = 5  # pictures a skill and language


def write(folder: Path) -> None:
    """Write the pictures and ``samples.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    languages: tuple[Language, ...] = ("en", "zh")
    entries: list[dict[str, str]] = []
    for at in range(EACH):
        for skill in SKILLS:
            for language in languages:
                number = len(entries)
                found = case(SEED + number, skill, language)
                png = at == EACH - 1 and max(found.picture.size) < 300
                name = f"{number:02d}-{skill}-{language}.{'png' if png else 'jpg'}"
                found.picture.save(folder / name, quality=88)  # PNG takes no notice of it
                entries.append(
                    {
                        "file": name, "question": found.turn.question,
                        "answer": found.turn.answer, "skill": skill, "language": language,
                    }
                )  # fmt: skip
    text = json.dumps(entries, indent=1, ensure_ascii=False)
    (folder / "samples.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Write the sample folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=Path("forebay/samples"))
    write(parser.parse_args().to)


if __name__ == "__main__":
    main()
