"""Files and folders that are there whole or not at all, whatever goes wrong on the way."""

import pytest

from synthaug.files import new_folder, replace_file, replace_files


def test_files_come_together_or_not_at_all(tmp_path):
    a, b = tmp_path / "x" / "a", tmp_path / "b"
    assert replace_files({a: b"1", b: "two"}) == [a, b]
    assert (a.read_bytes(), b.read_text()) == (b"1", "two")
    with pytest.raises(TypeError):
        replace_files({a: b"new", b: 3})
    assert (a.read_bytes(), b.read_text()) == (b"1", "two")
    assert replace_file(str(b), b"three") == b and b.read_bytes() == b"three"
    assert {p.name for p in tmp_path.rglob("*")} == {"x", "a", "b"}, "nothing is left beside them"


def test_a_folder_comes_whole_or_not_at_all(tmp_path):
    place = tmp_path / "deep" / "folder"
    with pytest.raises(RuntimeError, match="stopped"), new_folder(place) as folder:
        (folder / "half").write_text("1")
        raise RuntimeError("stopped")
    assert not place.exists() and not list(place.parent.iterdir())
    with new_folder(place) as folder:
        (folder / "whole").write_text("1")
        assert not place.exists()
    with new_folder(place) as folder:
        (folder / "late").write_text("2")
    assert [p.name for p in place.iterdir()] == ["whole"], "who was faster stays"
    assert [p.name for p in place.parent.iterdir()] == ["folder"]
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError), new_folder(tmp_path / "file") as folder:
        (folder / "x").write_text("")
    assert {p.name for p in tmp_path.iterdir()} == {"deep", "file"}
