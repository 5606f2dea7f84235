"""A whole store is looked through: damage is named and taken out, what nobody needs is freed."""

import itertools
import json
import os
import platform
import random
import re
import shutil
import sqlite3
import warnings
from contextlib import closing

import pytest

import maft_lib as maft
from maft_lib.disk import StoreError, StoreWarning, content_key
from maft_lib.integrity import YOUNG
from maft_lib.records import read_records
from maft_lib.societies import list_societies, save_society
from maft_lib.society import Agent, Society, base_society
from maft_lib.store import PAGE_SIZE, Store

WEIGHTS = "model.safetensors"
ENTRIES = {content_key(n): {"text": f"response {n} " * (n % 40)} for n in range(400)}
ABOUT = {"method": "multiagent_ft", "task": "arithmetic", "seed": 0, "iteration": 1, "accuracy": 0.5}


@pytest.fixture
def runs(tmp_path, model):
    """A store of 400 completions with two societies of one checkpoint each, and one of none."""
    store = Store(tmp_path / "runs")
    store.put(ENTRIES.items())
    for name in ("early", "late", "orphan"):
        folder = store.make_checkpoint(name, lambda new: (new / WEIGHTS).write_text("weights"))
        os.utime(folder, (0, 0))
    critics = base_society(model, 2).critics
    for iteration, name in enumerate(("early", "late"), start=1):
        agent = Agent("generation-1", "generator", str(store.folder / "checkpoints" / name))
        society = Society((agent, agent), critics, Agent("s", "summarizer", model))
        save_society(store.folder, society, **{**ABOUT, "iteration": iteration})
    store.close()
    return store.folder


def altered(path, place=None, mask=4):
    """Changes a byte of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= mask
    path.write_bytes(content)


def alter_entry(runs, key):
    store = Store(runs)
    store._connection.execute("UPDATE completions SET value = '{}' WHERE key = ?", (key,))
    store.close()


def test_a_whole_store(runs):
    found = maft.verify(runs)
    assert found.damaged == () and "400 completions, 3 checkpoints and 2 records: all whole" in str(
        found
    )


def test_every_damaged_piece_is_named_and_only_taken_out_when_told(runs):
    key = next(iter(ENTRIES))
    alter_entry(runs, key)
    altered(runs / "checkpoints" / "early" / WEIGHTS)
    record = next((runs / "societies").iterdir())
    altered(record)
    for repair in (False, False, True):
        found = maft.verify(runs, repair=repair)
        lines = str(found).splitlines()[1:]
        assert [any(word in line for line in lines) for word in (key, "early: model", record.name)]
        assert len(found.damaged) == 3
    assert maft.verify(runs).damaged == ()
    assert not (runs / "checkpoints" / "early").exists() and not record.exists()
    assert len(Store(runs).get(list(ENTRIES))) == 399


@pytest.mark.parametrize("seed", range(20))
def test_one_altered_byte_of_the_database_costs_few_entries_and_gives_none_that_is_wrong(runs, seed):
    altered(runs / "completions.sqlite", random.Random(seed).randrange(60_000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StoreWarning)
        store = Store(runs)
        found = store.get(list(ENTRIES))
        assert found.items() <= ENTRIES.items()
        assert len(found) >= 360
        store.put(ENTRIES.items())
        assert store.get(list(ENTRIES)) == ENTRIES
        store.close()
        maft.verify(runs, repair=True)
    assert maft.verify(runs).damaged == ()


@pytest.mark.filterwarnings("ignore::maft_lib.disk.StoreWarning")
@pytest.mark.parametrize("place", ["in the table", "in the index"])
def test_an_altered_key_is_found_and_its_entry_can_be_stored_again(runs, place):
    """Each key is kept twice, and the two then differ."""
    key, database = list(ENTRIES)[200], runs / "completions.sqlite"
    content = database.read_bytes()
    places = [found.start() for found in re.finditer(key.encode(), content)]
    in_table = [content[start + 64 : start + 65] == b"{" for start in places]
    assert sorted(in_table) == [False, True]
    altered(database, places[in_table.index(place == "in the table")] + 5)
    assert maft.verify(runs).damaged
    store = Store(runs)
    assert len(store.get(list(ENTRIES))) >= 399
    store.put(ENTRIES.items())
    assert store.get(list(ENTRIES)) == ENTRIES
    store.close()
    maft.verify(runs, repair=True)
    assert maft.verify(runs).damaged == ()


@pytest.mark.filterwarnings("ignore::maft_lib.disk.StoreWarning")
def test_what_is_altered_before_a_row_costs_hardly_more_than_the_row(runs):
    """There stand its length, its number and the kinds of its parts."""
    database, lost = runs / "completions.sqlite", 0
    content = database.read_bytes()
    (start,) = re.finditer(list(ENTRIES)[200].encode() + rb"\{", content)
    for before, mask in itertools.product(range(1, 12), (1, 8, 128)):
        database.write_bytes(content)
        altered(database, start.start() - before, mask)
        store = Store(runs)
        lost += len(ENTRIES) - len(store.get(list(ENTRIES)))
        store.put(ENTRIES.items())
        assert store.get(list(ENTRIES)) == ENTRIES
        store.close()
    assert lost < 100


def test_a_database_that_lost_its_end_keeps_its_beginning(runs):
    os.truncate(runs / "completions.sqlite", (runs / "completions.sqlite").stat().st_size // 2)
    with pytest.warns(StoreWarning, match="entries could be read and are kept"):
        store = Store(runs)
        found = store.get(list(ENTRIES))
    assert found.items() <= ENTRIES.items() and len(found) > 100


def test_the_first_page_holds_nothing_that_cannot_be_had_again(runs):
    with (runs / "completions.sqlite").open("r+b") as file:
        file.write(bytes(PAGE_SIZE))
    with pytest.warns(StoreWarning, match="400 entries could be read and are kept"):
        assert Store(runs).get(list(ENTRIES)) == ENTRIES


@pytest.mark.parametrize("length", [0, 10, 99, 2000, 4096, 5000, 8192])
def test_a_kill_and_a_cut_file_leave_what_the_log_holds(runs, tmp_path, length):
    """The database as a killed process leaves it, with its write-ahead log, and then cut off."""
    store = Store(runs)
    more = {content_key(f"more {n}"): {"text": "x"} for n in range(50)}
    store.put(more.items())
    shutil.copytree(runs, tmp_path / "killed")
    os.truncate(tmp_path / "killed" / "completions.sqlite", length)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StoreWarning)
        found = Store(tmp_path / "killed").get([*ENTRIES, *more])
    assert found.items() <= (ENTRIES | more).items()


def test_a_place_without_a_store(tmp_path):
    for look in (maft.verify, maft.gc):
        with pytest.raises(StoreError, match="holds no store: give the folder"):
            look(tmp_path)


def names(freed):
    return [path.name for path in freed.paths]


def test_only_what_no_society_has_is_freed_and_only_when_told(runs):
    found = maft.gc(runs)
    assert names(found) == ["orphan"] and found.dry_run
    assert "1 files and folders" in str(found) and "dry_run=False" in str(found)
    assert (runs / "checkpoints" / "orphan").is_dir()
    assert names(maft.gc(runs, dry_run=False)) == ["orphan"]
    assert not (runs / "checkpoints" / "orphan").exists()
    assert maft.gc(runs).paths == ()


def test_what_is_kept_is_said_by_what_is_known_of_societies(runs):
    last = maft.gc(runs, keep=lambda about: about["iteration"] == 2, dry_run=False)
    assert names(last) == ["early", "orphan"] and last.num_bytes > 10
    assert [saved.about["iteration"] for saved in maft.list_societies(runs)] == [2]


def test_a_checkpoint_that_a_running_study_has_just_made_stays(runs):
    os.utime(runs / "checkpoints" / "orphan")
    assert maft.gc(runs).paths == ()
    assert YOUNG == 24 * 3600


def test_what_was_put_aside_is_freed(runs):
    altered(runs / "checkpoints" / "late" / WEIGHTS)
    maft.verify(runs, repair=True)
    assert names(maft.gc(runs)) == [".damaged-late", "orphan"]


def test_what_a_killed_process_had_begun_is_freed_after_a_day(runs):
    for name in ("societies/.new-1-2", "studies/.new-3-4", "checkpoints/.new-here-5-x"):
        (runs / name).parent.mkdir(exist_ok=True)
        (runs / name).write_text("half")
        os.utime(runs / name, (0, 0))
    (runs / "societies" / ".new-6-7").write_text("of now")
    expected = [".new-1-2", ".new-3-4", ".new-here-5-x", "orphan"]
    assert sorted(names(maft.gc(runs))) == expected
    assert maft.verify(runs).damaged == ()


def test_what_is_being_written_is_not_freed(runs):
    """A training may take longer than a day."""
    folder = runs / "checkpoints" / f".new-{platform.node()}-{os.getpid()}-x"
    folder.mkdir()
    os.utime(folder, (0, 0))
    assert names(maft.gc(runs, dry_run=False)) == ["orphan"] and folder.is_dir()


def test_agents_of_a_damaged_society_are_not_freed(runs):
    """Nor those of one that has lost another agent."""
    altered(runs / "checkpoints" / "late" / WEIGHTS)
    for path in (runs / "societies").iterdir():
        if "early" in path.read_text():
            altered(path)
    assert maft.gc(runs).paths == ()
    maft.verify(runs, repair=True)
    assert "early" in names(maft.gc(runs))  # now nobody's: its study, run again, says whose it is


def test_the_sisters_of_a_damaged_agent_are_not_freed(runs, model):
    agents = [Agent(f"generation-{n}", "generator", str(runs / "checkpoints" / n)) for n in ("a", "b")]
    store = Store(runs)
    for agent in agents:
        folder = store.make_checkpoint(agent.name, lambda new: (new / WEIGHTS).write_text("weights"))
        os.utime(folder.rename(agent.model), (0, 0))
    society = Society(tuple(agents), base_society(model, 2).critics, Agent("s", "summarizer", model))
    save_society(runs, society, **{**ABOUT, "iteration": 3})
    altered(runs / "checkpoints" / "a" / WEIGHTS)
    maft.verify(runs, repair=True)
    assert names(maft.gc(runs)) == [".damaged-a", "orphan"]


@pytest.mark.parametrize("version", [1, 2])
def test_verifying_changes_nothing(runs, version):
    if version == 1:
        downgraded(runs)
    altered(runs / "checkpoints" / "early" / WEIGHTS)
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    assert len(maft.verify(runs).damaged) == 1
    after = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    ours = {path: data for path, data in after.items() if path in before}
    assert ours == before and {path.suffix for path in after.keys() - before.keys()} <= {
        ".sqlite-wal",  # empty ones, as every reader's
        ".sqlite-shm",
    }


def downgraded(runs):
    """Makes it a store of format 1, whose rows lie in the order of their keys."""
    with closing(sqlite3.connect(runs / "completions.sqlite", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("ALTER TABLE completions RENAME TO newer")
        columns = "key TEXT PRIMARY KEY, value TEXT NOT NULL, checksum TEXT NOT NULL"
        connection.execute(f"CREATE TABLE completions ({columns}) WITHOUT ROWID")
        connection.execute("INSERT INTO completions SELECT * FROM newer")
        connection.execute("DROP TABLE newer")
        connection.execute("PRAGMA user_version=1")


def test_what_does_not_belong_to_a_store_is_let_be(runs):
    (runs / "checkpoints" / "late" / ".DS_Store").write_text("a file manager's")
    (runs / "societies" / "x.json").mkdir()
    (runs / "checkpoints" / "link").symlink_to(runs / "elsewhere")
    assert maft.verify(runs, repair=True).damaged == ()
    assert len(list_societies(runs)) == 2


def test_a_study_that_goes_on_finds_the_database_that_another_process_has_rebuilt(runs):
    mine = Store(runs)
    altered(runs / "completions.sqlite", place=2 * PAGE_SIZE + 1, mask=255)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StoreWarning)
        found = maft.verify(runs, repair=True)
    assert found.repaired and found.num_completions > 100
    mine.put([("key of now", {"text": "response"})])
    assert Store(runs).get(["key of now"])


def test_a_store_in_a_folder_that_cannot_be_written_is_read(runs, monkeypatch):
    """`os.access` is asked instead of the folder's mode, which does not bind everybody."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    before = sorted((path.name, path.stat().st_mtime_ns) for path in runs.iterdir())
    store = Store(runs)
    assert store.get(list(ENTRIES)) == ENTRIES
    with pytest.raises(StoreError, match="readonly.*name another one as `runs_dir`"):
        store.put([("new", {})])
    assert sorted((path.name, path.stat().st_mtime_ns) for path in runs.iterdir()) == before


def test_a_study_writes_down_what_it_ran_with(config):
    from maft_lib.studies import run_study

    small = config.replace(num_train=4, num_eval=4)
    for _ in range(2):  # the second writes nothing new
        run_study("base", "arithmetic", small)
    (record,), damaged = read_records(config.path(config.runs_dir) / "studies")
    assert damaged == [] and record["method"] == "base"
    assert record["config"] == json.loads(small.model_dump_json())
    assert {"maft_lib", "python", "torch", "transformers", "processor", "GPU"} <= record[
        "made_with"
    ].keys()
    shutil.rmtree(config.path(config.runs_dir))
