"""Files that are whole: written in one piece, and read to the end or refused."""

import os
import threading

import numpy as np
import pytest

from advjax import files


def test_a_file_appears_in_one_piece(tmp_path):
    path = tmp_path / 'file'
    path.write_text('old')
    with files.replaced(path) as unfinished:
        unfinished.write_text('new')
        assert unfinished.parent == path.parent
        assert path.read_text() == 'old'
    assert path.read_text() == 'new'
    assert os.listdir(tmp_path) == ['file']


@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt])
def test_a_failed_write_leaves_the_old_file_alone(tmp_path, error):
    path = tmp_path / 'file'
    path.write_text('old')

    def fail():
        with files.replaced(path) as unfinished:
            unfinished.write_text('half')
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == 'old'
    assert os.listdir(tmp_path) == ['file']


def test_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / 'file'
    both = threading.Barrier(2)

    def write(letter):
        with files.replaced(path) as unfinished:
            unfinished.write_text(letter)
            both.wait(10)
            assert unfinished.read_text() == letter
            both.wait(10)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in 'ab']
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in ('a', 'b')
    assert os.listdir(tmp_path) == ['file']


def test_a_durable_file_is_on_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    path, synced = tmp_path / 'file', []

    def sync(number):
        assert not path.exists()
        synced.append(os.fstat(number).st_size)

    monkeypatch.setattr(os, 'fsync', sync)
    with files.replaced(path) as unfinished:
        unfinished.write_text('not forced')
    assert not synced
    path.unlink()
    with files.replaced(path, durable=True) as unfinished:
        unfinished.write_text('forced')
    assert synced == [6]


def test_others_may_read_what_was_written(tmp_path):
    plain = tmp_path / 'plain'
    plain.write_text('')
    files.write_text(tmp_path / 'ours', '')
    assert (tmp_path / 'ours').stat().st_mode == plain.stat().st_mode


def test_a_text_is_utf_8_with_line_feeds(tmp_path):
    files.write_text(tmp_path / 'text', 'a\nä')
    assert (tmp_path / 'text').read_bytes() == b'a\n\xc3\xa4'


def test_arrays_are_read_back(tmp_path):
    np.savez(tmp_path / 'a.npz', one=np.arange(3), two=np.float32(2))
    found = files.load_npz(tmp_path / 'a.npz')
    np.testing.assert_array_equal(found['one'], np.arange(3))
    assert found['two'].dtype == np.float32
    with pytest.raises(FileNotFoundError):
        files.load_npz(tmp_path / 'b.npz')


@pytest.mark.parametrize(
    'damage',
    [
        lambda raw: b'',
        lambda raw: b'no archive',
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw.replace(b'\x07' * 8, b'\x08' * 8),
    ],
)
def test_a_damaged_archive_is_refused_and_closed(tmp_path, damage):
    path = tmp_path / 'a.npz'
    np.savez(path, one=np.full(100, 7, np.uint8))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(files.DamagedError):
        files.load_npz(path)


def test_objects_are_not_unpickled(tmp_path):
    np.savez(tmp_path / 'a.npz', one=np.array([{}], object))
    with pytest.raises(files.DamagedError, match='pickle'):
        files.load_npz(tmp_path / 'a.npz')
