"""Files are written whole or not at all."""

import os

import pytest

from rbpp.files import written_whole


def test_what_stood_there_stays_where_writing_fails(tmp_path):
    place = tmp_path / "report.html"
    place.write_text("before")
    with pytest.raises(RuntimeError), written_whole(place) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert place.read_text() == "before"
    assert os.listdir(tmp_path) == ["report.html"]


def test_a_new_file_replaces_the_old_one_with_its_permissions(tmp_path):
    place = tmp_path / "rows.csv"
    place.write_text("before")
    place.chmod(0o640)
    with written_whole(place) as aside:
        aside.write_text("after")
    assert place.read_text() == "after"
    assert place.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["rows.csv"]


def test_two_writers_do_not_share_a_file(tmp_path):
    place = tmp_path / "x"
    with written_whole(place) as one, written_whole(place) as other:
        assert one != other
        one.write_text("1")
        other.write_text("2")
    assert place.read_text() == "1"


def test_a_missing_folder_is_told_by_the_name_of_the_file(tmp_path):
    place = tmp_path / "absent" / "file"
    with pytest.raises(FileNotFoundError) as refused, written_whole(place):
        pass
    assert refused.value.filename == str(place)
