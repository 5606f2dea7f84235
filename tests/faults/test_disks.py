"""Disks that lose what was written last, flip a byte, are full or read-only."""

import os
import random
import shutil

import pandas as pd
import pytest

import maft_lib as maft
from maft_lib.store.files import StoreError
from maft_lib.tables import save_table
from tests.faults.conftest import KILLS
from tests.faults.disturbed import Disturbed, small_disk

pytestmark = pytest.mark.faults
REPEATS = max(2, KILLS // 8)


@pytest.mark.parametrize("seed", range(REPEATS))
def test_a_power_cut_loses_the_end_of_what_was_written_last(killed, undisturbed, tally, seed):
    """After a kill the last written files are cut off at random places."""
    chance, counted = random.Random(seed), tally("last files cut off")
    study = killed(("early", "half")[seed % 2])
    for path in newest_files(study.runs, chance.randint(1, 6)):
        os.truncate(path, chance.randint(0, path.stat().st_size))
        counted.count()
    maft.verify(study.runs, repair=True)
    study.finish()
    counted.compare(study, undisturbed)
    assert maft.verify(study.runs).empty


def newest_files(folder, num):
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith("-shm")]
    return sorted(files, key=lambda path: path.stat().st_mtime_ns)[-num:]


@pytest.mark.parametrize("seed", range(REPEATS))
def test_a_flipped_byte_is_found_and_what_it_damaged_is_made_again(tmp_path, undisturbed, tally, seed):
    """In the database, a checkpoint and a record of a finished study."""
    chance, counted = random.Random(seed), tally("a byte flipped")
    study = Disturbed(tmp_path / "study")
    shutil.copytree(undisturbed.runs, study.runs)
    database = study.runs / "completions.sqlite"
    checkpoint = chance.choice(sorted(study.runs.glob("checkpoints/[!.]*")))
    record = chance.choice(sorted(study.runs.glob("societies/*.json")))
    weights = chance.choice(sorted(checkpoint.iterdir()))
    for path in (database, weights, record):
        flip(path, chance)
        counted.count()
    found = {path.name for path in maft.verify(study.runs, repair=True).path}
    assert {checkpoint.name, record.name} <= found
    begun_anew = (study.runs / "damaged-completions.sqlite").exists()
    calls, trained, _ = study.finish()
    counted.compare(study, undisturbed)
    assert trained == 1 and (begun_anew or calls <= len(undisturbed.keys()) // 4)
    counted.count(tried=0, **{"completions made again": calls})
    maft.gc(study.runs, dry_run=False)
    assert maft.verify(study.runs).empty


def flip(path, chance):
    """Changes one bit of a file."""
    content = bytearray(path.read_bytes())
    place = chance.randrange(len(content))
    content[place] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def test_a_full_disk(tmp_path, undisturbed, tally):
    """It is full while the study generates; there is a little more, and it is full in training."""
    counted = tally("disk full")
    needed = sum(path.stat().st_size for path in undisturbed.runs.rglob("*") if path.is_file())
    with small_disk(tmp_path / "disk", 300_000) as remount:
        study = Disturbed(tmp_path / "tables", tmp_path / "disk" / "runs")
        for share in (0.4, 2):
            said = study.fail()
            assert "StoreError: " in said and "Free some space" in said
            before = study.keys()
            counted.count()
            remount(f"size={int(share * needed)}")
            assert study.keys() == before
        study.finish()
        counted.compare(study, undisturbed)


def test_a_full_disk_of_figures(tmp_path, tally):
    """What was there before stays whole, and nothing half written is left."""
    counted = tally("disk full")
    old, new = pd.DataFrame({"a": [1]}), pd.DataFrame({"a": range(20_000)})
    with small_disk(tmp_path, 65_536):
        paths = save_table(old, tmp_path / "table")
        before = [path.read_bytes() for path in paths]
        with pytest.raises(StoreError, match="table.md cannot be used: .*No space left .*Free some"):
            save_table(new, tmp_path / "table")
        counted.count()
        assert [path.read_bytes() for path in paths] == before
        assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_a_read_only_store(tmp_path, killed, undisturbed, tally):
    """An unfinished study cannot go on there, a finished one can be looked at."""
    counted = tally("disk read-only")
    with small_disk(tmp_path / "disk", "200m") as remount:
        study = killed("half", tmp_path / "disk" / "runs")
        remount("ro")
        said = study.fail()
        assert "StoreError: " in said and "name another `runs_dir`" in said
        counted.count()
        remount("rw")
        study.finish()
        counted.compare(study, undisturbed)
        shutil.rmtree(study.tables)
        study.tables.mkdir()
        remount("ro")
        calls, trained, _ = study.finish()
        counted.count()
        counted.compare(study, undisturbed)
        assert (calls, trained) == (0, 0)
