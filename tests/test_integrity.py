"""A whole store is looked through: damage is named and taken out, what nobody needs is freed."""

import json
import os
import platform
import random
import re
import shutil
import warnings
from contextlib import closing

import pytest

import maft_lib as maft
from maft_lib.society import Agent, Society, base_society, list_societies, save_society
from maft_lib.store import Store
from maft_lib.store.files import StoreError, StoreWarning, content_key, make_checkpoint, read_records

WEIGHTS = "model.safetensors"
ENTRIES = {content_key(n): {"text": f"response {n} " * (n % 40)} for n in range(400)}
ABOUT = {"method": "multiagent_ft", "task": "arithmetic", "seed": 0, "iteration": 1, "accuracy": 0.5}


@pytest.fixture
def runs(tmp_path, model):
    """A store of 400 completions with two societies of one checkpoint each, and one of none."""
    store = Store(tmp_path / "runs")
    store.put(ENTRIES.items())
    for name in ("early", "late", "orphan"):
        folder = make_checkpoint(store.folder, name, lambda new: (new / WEIGHTS).write_text("weights"))
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
    assert maft.verify(runs).empty


def test_every_damaged_piece_is_named_and_only_taken_out_when_told(runs):
    key = next(iter(ENTRIES))
    alter_entry(runs, key)
    altered(runs / "checkpoints" / "early" / WEIGHTS)
    record = next((runs / "societies").iterdir())
    altered(record)
    for repair in (False, False, True):
        found = maft.verify(runs, repair=repair)
        assert list(found.path) == [runs / "completions.sqlite", runs / "checkpoints" / "early", record]
        assert list(found.what)[:2] == [key, WEIGHTS]
    assert maft.verify(runs).empty
    assert not (runs / "checkpoints" / "early").exists() and not record.exists()
    assert len(Store(runs).get(list(ENTRIES))) == 399


def entries_or_refusal(runs):
    """What a store finds of the entries; nothing where it says that its database is damaged."""
    try:
        with warnings.catch_warnings(), closing(Store(runs)) as store:
            warnings.simplefilter("ignore", StoreWarning)
            return store.get(list(ENTRIES))
    except StoreError as error:
        assert "puts a damaged database aside" in str(error)
        return {}


@pytest.mark.parametrize("seed", range(20))
def test_one_altered_byte_of_the_database_gives_no_wrong_entry_and_is_repaired(runs, seed):
    altered(runs / "completions.sqlite", random.Random(seed).randrange(60_000))
    assert entries_or_refusal(runs).items() <= ENTRIES.items()
    maft.verify(runs, repair=True)
    store = Store(runs)
    store.put(ENTRIES.items())
    assert store.get(list(ENTRIES)) == ENTRIES
    store.close()
    assert maft.verify(runs).empty


@pytest.mark.parametrize("length", [0, 10, 99, 2000, 4096, 16384, 40_000])
def test_a_cut_database_is_named_and_begun_anew_when_asked(runs, tmp_path, length):
    """As a killed process leaves it, with its write-ahead log, and then cut off."""
    shutil.copytree(runs, tmp_path / "killed")
    os.truncate(tmp_path / "killed" / "completions.sqlite", length)
    assert entries_or_refusal(tmp_path / "killed").items() <= ENTRIES.items()
    maft.verify(tmp_path / "killed", repair=True)
    assert entries_or_refusal(tmp_path / "killed").items() <= ENTRIES.items()


@pytest.mark.filterwarnings("ignore::maft_lib.store.files.StoreWarning")
@pytest.mark.parametrize("place", ["in the table", "in the index"])
def test_an_altered_key_is_found_and_its_entry_can_be_stored_again(runs, place):
    """Each key is kept twice, and the two then differ."""
    key, database = list(ENTRIES)[200], runs / "completions.sqlite"
    content = database.read_bytes()
    places = [found.start() for found in re.finditer(key.encode(), content)]
    in_table = [content[start + 64 : start + 65] == b"{" for start in places]
    assert sorted(in_table) == [False, True]
    altered(database, places[in_table.index(place == "in the table")] + 5)
    assert len(maft.verify(runs))
    assert len(entries_or_refusal(runs)) >= 399
    maft.verify(runs, repair=True)
    store = Store(runs)
    assert len(store.get(list(ENTRIES))) >= 399
    store.put(ENTRIES.items())
    assert store.get(list(ENTRIES)) == ENTRIES
    store.close()
    assert maft.verify(runs).empty


def test_a_place_without_a_store(tmp_path):
    with pytest.raises(StoreError, match="No such file"):
        maft.verify(tmp_path)
    assert maft.gc(tmp_path).empty


def names(freed):
    return sorted(path.name for path in freed.path)


def test_only_what_no_society_has_is_freed_and_only_when_told(runs):
    assert names(maft.gc(runs)) == ["orphan"]
    assert (runs / "checkpoints" / "orphan").is_dir()
    assert names(maft.gc(runs, dry_run=False)) == ["orphan"]
    assert not (runs / "checkpoints" / "orphan").exists()
    assert maft.gc(runs).empty


def test_what_is_kept_is_said_by_what_is_known_of_societies(runs):
    last = maft.gc(runs, keep=lambda about: about["iteration"] == 2, dry_run=False)
    assert names(last) == ["early", "orphan"] and last.num_bytes.min() > 10
    assert [saved.about["iteration"] for saved in maft.list_societies(runs)] == [2]


def test_a_checkpoint_that_a_running_study_has_just_made_stays(runs):
    os.utime(runs / "checkpoints" / "orphan")
    assert maft.gc(runs).empty


def test_what_was_put_aside_is_freed(runs):
    altered(runs / "checkpoints" / "late" / WEIGHTS)
    maft.verify(runs, repair=True)
    assert names(maft.gc(runs)) == [".damaged-late", "orphan"]


def test_what_a_killed_process_had_begun_is_freed_after_a_week(runs):
    for name in ("societies/.new-1-2", "studies/.new-3-4", "checkpoints/.new-5-x@there"):
        (runs / name).parent.mkdir(exist_ok=True)
        (runs / name).write_text("half")
        os.utime(runs / name, (0, 0))
    (runs / "societies" / ".new-6-7").write_text("of now")
    expected = [".new-1-2", ".new-3-4", ".new-5-x@there", "orphan"]
    assert sorted(names(maft.gc(runs))) == expected
    assert maft.verify(runs).empty


def test_what_is_being_written_is_not_freed(runs):
    folder = runs / "checkpoints" / f".new-{os.getpid()}-x@{platform.node()}"
    folder.mkdir()
    Store(runs).close()
    assert names(maft.gc(runs, dry_run=False)) == ["orphan"] and folder.is_dir()


def test_agents_of_a_damaged_society_are_not_freed(runs):
    """Nor those of one that has lost another agent."""
    altered(runs / "checkpoints" / "late" / WEIGHTS)
    for path in (runs / "societies").iterdir():
        if "early" in path.read_text():
            altered(path)
    assert maft.gc(runs).empty
    maft.verify(runs, repair=True)
    assert "early" in names(maft.gc(runs))  # now nobody's: its study, run again, says whose it is


def test_the_sisters_of_a_damaged_agent_are_not_freed(runs, model):
    agents = [Agent(f"generation-{n}", "generator", str(runs / "checkpoints" / n)) for n in ("a", "b")]
    for agent in agents:
        folder = make_checkpoint(runs, agent.name, lambda new: (new / WEIGHTS).write_text("weights"))
        os.utime(folder.rename(agent.model), (0, 0))
    society = Society(tuple(agents), base_society(model, 2).critics, Agent("s", "summarizer", model))
    save_society(runs, society, **{**ABOUT, "iteration": 3})
    altered(runs / "checkpoints" / "a" / WEIGHTS)
    maft.verify(runs, repair=True)
    assert names(maft.gc(runs)) == [".damaged-a", "orphan"]


def test_verifying_changes_nothing(runs):
    altered(runs / "checkpoints" / "early" / WEIGHTS)
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    assert len(maft.verify(runs)) == 1
    after = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    ours = {path: data for path, data in after.items() if path in before}
    assert ours == before and {path.suffix for path in after.keys() - before.keys()} <= {
        ".sqlite-wal",  # empty ones, as every reader's
        ".sqlite-shm",
    }


def test_what_does_not_belong_to_a_store_is_let_be(runs):
    (runs / "checkpoints" / "late" / ".DS_Store").write_text("a file manager's")
    (runs / "societies" / "x.json").mkdir()
    (runs / "checkpoints" / "link").symlink_to(runs / "elsewhere")
    assert maft.verify(runs, repair=True).empty
    assert len(list_societies(runs)) == 2


def test_a_store_in_a_folder_that_cannot_be_written_is_read(runs, monkeypatch):
    """`os.access` is asked instead of the folder's mode, which does not bind everybody."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    before = sorted((path.name, path.stat().st_mtime_ns) for path in runs.iterdir())
    store = Store(runs)
    assert store.get(list(ENTRIES)) == ENTRIES
    with pytest.raises(StoreError, match="readonly.*name another `runs_dir`"):
        store.put([("new", {})])
    assert sorted((path.name, path.stat().st_mtime_ns) for path in runs.iterdir()) == before


def test_a_study_writes_down_what_it_ran_with(config):
    from maft_lib.run import run_study

    small = config.replace(num_train=4, num_eval=4)
    for _ in range(2):  # the second writes nothing new
        run_study("base", "arithmetic", small)
    records, damaged = read_records(config.path(config.runs_dir) / "studies")
    (record,) = records.values()
    assert damaged == [] and record["method"] == "base"
    assert record["config"] == json.loads(small.model_dump_json())
    assert {"maft_lib", "python", "torch", "transformers", "processor", "GPU"} <= record[
        "made_with"
    ].keys()
    shutil.rmtree(config.path(config.runs_dir))
