from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from bench.peer_setup import mend_torchvision, name_vllm
from bench.peers import PEERS, PeerMissingError, forebay, peer, require_peers
from bench.pictures import SIDE, picture
from forebay.admission.header import read_header
from forebay.config import PEERS_VARIABLE, load_settings


def installed(home: Path, *names: str) -> Path:
    for name in names:
        python = home / name / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.touch()
    return home


def test_a_peer_that_is_not_installed_is_told_with_the_command_that_installs_it(
    tmp_path: Path,
) -> None:
    home = installed(tmp_path, "hf")
    require_peers(["litserve", "flask", "transformers"], home)
    with pytest.raises(PeerMissingError, match="make peers ARGS='vllm'"):
        require_peers(["litserve", "vllm"], home)


def test_an_unknown_peer_is_told_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(PeerMissingError, match="known: vllm, litserve, flask, transformers"):
        require_peers(["vlm"], tmp_path)


def test_every_server_listens_on_this_machine_on_a_port_of_its_own(tmp_path: Path) -> None:
    recipes = [peer(name, tmp_path, tmp_path / "tiny") for name in PEERS]
    recipes.append(forebay("forebay", tmp_path / "tiny", tmp_path / "data", None))
    for one, other in itertools.combinations(recipes, 2):
        assert one.port != other.port
    for one in recipes:
        said = (*one.command, *one.environment.values())
        assert str(one.port) in said
        assert str(tmp_path / "tiny") in said


def test_the_folder_of_the_peers_is_not_taken_for_a_mistyped_setting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(PEERS_VARIABLE, str(tmp_path))
    monkeypatch.setenv("FOREBAY_CONFIG", "")
    assert load_settings().model == "demo"


def test_mending_is_done_once(tmp_path: Path) -> None:
    package = tmp_path / "torchvision"
    (package / "io").mkdir(parents=True)
    registered = '@torch.library.register_fake("torchvision::nms")\n'
    (package / "_meta_registrations.py").write_text(registered)
    for name in ("extension.py", "io/image.py"):
        (package / name).write_text("# as installed\n")
    mend_torchvision(package)
    once = [(package / name).read_text() for name in ("extension.py", "io/image.py")]
    mend_torchvision(package)
    assert once == [(package / name).read_text() for name in ("extension.py", "io/image.py")]
    assert "['nms']" in once[0]
    for text in once:
        compile(text, "mended", "exec")


def test_vllm_gets_the_name_that_its_command_looks_for(tmp_path: Path) -> None:
    name_vllm(tmp_path, "1.2.3")
    (metadata,) = tmp_path.glob("vllm-1.2.3*.dist-info/METADATA")
    assert "Name: vllm\nVersion: 1.2.3" in metadata.read_text()


def test_pictures_are_distinct_and_weigh_what_photographs_weigh() -> None:
    drawn = [picture(index) for index in range(4)]
    assert len(set(drawn)) == 4
    picture.cache_clear()
    assert picture(0) == drawn[0]
    for content in drawn:
        header = read_header(content)
        assert (header.width, header.height) == (SIDE, SIDE)
        assert 50_000 < len(content) < 120_000
