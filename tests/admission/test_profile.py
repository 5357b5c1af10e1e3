"""The door learns the model from its JSON files."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from forebay.admission.profile import ModelProfile, ProfileError
from forebay.core.template_files import CONFIG_FILES, TEMPLATE_FILE
from tests.checkpoints import TINY, write_checkpoint


def write(folder, config, processor):
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))


def test_context_and_grid_come_from_the_folder(tmp_path):
    write(
        tmp_path,
        {"text_config": {"max_position_embeddings": 1234}},
        {"patch_size": 16, "size": {"shortest_edge": 100, "longest_edge": 2000}},
    )
    profile = ModelProfile.from_folder(tmp_path, "served", ("alias",))
    assert profile.context_tokens == 1234
    assert profile.rules.patch_size == 16
    assert profile.rules.max_pixels == 2000
    assert profile.knows("served")
    assert profile.knows("alias")
    assert not profile.knows("other")


@pytest.mark.parametrize("shape", [TINY, replace(TINY, tools=True)])
@pytest.mark.parametrize("place", [TEMPLATE_FILE, *CONFIG_FILES])
def test_the_chat_template_says_whether_functions_can_be_called(tmp_path, shape, place):
    folder = write_checkpoint(tmp_path, shape)
    source = (folder / TEMPLATE_FILE).read_text()
    if place != TEMPLATE_FILE:
        (folder / TEMPLATE_FILE).unlink()
        (folder / place).write_text(json.dumps({"chat_template": source}))
    assert ModelProfile.from_folder(folder, "served").calls is shape.tools


@pytest.mark.parametrize(
    ("config", "processor", "named"),
    [
        ({}, {}, "config.json"),
        ([], {}, "config.json"),
        ({"max_position_embeddings": 9}, {"patch_size": "x"}, "preprocessor_config.json"),
        ({"max_position_embeddings": 9}, {"size": "large"}, "preprocessor_config.json"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, config, processor, named):
    write(tmp_path, config, processor)
    with pytest.raises(ProfileError, match=named):
        ModelProfile.from_folder(tmp_path, "served")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ProfileError, match="nowhere"):
        ModelProfile.from_folder(tmp_path / "nowhere", "served")
