"""The store: whole entries or none, damage is named, nothing finished is lost."""

import multiprocessing
import os
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import maft_lib as maft
from maft_lib.backends import BackendError, Completion, Request, Sampling, generate
from maft_lib.backends.hub import load_tokenizer
from maft_lib.backends.opening import CachedBackend
from maft_lib.store import Store, model_identity
from maft_lib.store.files import (
    StoreError,
    StoreWarning,
    content_key,
    explained,
    find_checkpoint,
    make_checkpoint,
)
from tests.scripted import ScriptedBackend


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "runs")
    yield store
    store.close()


def requests(num, seed=0):
    message = {"role": "user", "content": "What?"}
    return [Request("m", (message,), Sampling(), seed + i) for i in range(num)]


def test_nothing_is_generated_twice(store):
    backend = CachedBackend(ScriptedBackend(lambda request: f"text {request.seed}"), store)
    first = generate(backend, requests(200))
    assert backend.num_calls == 200
    again = CachedBackend(ScriptedBackend(lambda request: "other"), store)
    assert generate(again, requests(200)) == first
    assert again.num_calls == 0 and len(store) == 200


def test_equal_requests_are_asked_once(store):
    backend = CachedBackend(ScriptedBackend(lambda request: "same"), store)
    assert generate(backend, requests(1) * 5) == [Completion("same", 1, 1, "stop")] * 5
    assert backend.num_calls == 1


def asked_by_two_threads(store, said):
    """The same request from two threads: (calls of the backend, both futures)."""
    going, go_on = threading.Event(), threading.Event()

    def slow(request):
        going.set()
        go_on.wait(30)
        return said()

    backend = CachedBackend(ScriptedBackend(slow), store)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(generate, backend, requests(1))
        going.wait(30)
        second = pool.submit(generate, backend, requests(1))
        time.sleep(0.2)  # it asks the store and finds nothing yet
        go_on.set()
    return backend.num_calls, first, second


def test_a_thread_waits_for_what_another_is_having_generated(store):
    num_calls, first, second = asked_by_two_threads(store, lambda: "said once")
    assert first.result() == second.result() and num_calls == 1


def test_what_another_thread_failed_to_generate_is_generated(store):
    failed = []

    def once_down():
        if not failed:
            failed.append(True)
            raise BackendError("down")
        return "up again"

    _, first, second = asked_by_two_threads(store, once_down)
    assert isinstance(first.exception(), BackendError)
    assert second.result()[0].text == "up again"


def test_an_interrupted_run_keeps_what_had_come_in(store):
    script = [f"text {i}" for i in range(70)]
    with pytest.raises(RuntimeError, match="ran out"):
        generate(CachedBackend(ScriptedBackend(script), store), requests(100))
    assert len(store) == 70


@pytest.mark.parametrize("change", ["model", "seed", "temperature", "prompt"])
def test_whatever_changes_the_answer_changes_the_key(change):
    message = {"role": "user", "content": "What?"}
    values = {"model": "m", "messages": (message,), "sampling": Sampling(), "seed": 0}
    changes = {
        "model": {"model": "other"},
        "seed": {"seed": 1},
        "temperature": {"sampling": Sampling(temperature=0.5)},
        "prompt": {"messages": ({"role": "user", "content": "Who?"},)},
    }
    backend = ScriptedBackend([])
    keys = {
        content_key(backend.describe(Request(**values))),
        content_key(backend.describe(Request(**{**values, **changes[change]}))),
    }
    assert len(keys) == 2


def test_text_of_any_kind_survives(store):
    text = "lone \ud800 surrogate, \x00 null, \u202e bidi"
    store.put([("k", {"text": text})])
    assert store.get(["k"]) == {"k": {"text": text}}


def write_many(folder, start):
    store = Store(folder)
    for i in range(start, start + 50):
        store.put([(f"key {i}", {"text": str(i)})])


def test_two_processes_write_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_many, args=(tmp_path, start)) for start in (0, 25)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert len(Store(tmp_path)) == 75


def test_an_altered_entry_is_named_and_made_again(store):
    store.put([(name, {"text": "right"}) for name in ("k", "other")])
    store._connection.execute(
        "UPDATE completions SET value = replace(value, 'g', x'ff') WHERE key = 'k'"
    )
    with pytest.warns(StoreWarning, match="entry k was altered on disk and is made anew"):
        assert store.get(["k", "other"]) == {"other": {"text": "right"}}
    store.put([("k", {"text": "again"})])
    assert store.get(["k"]) == {"k": {"text": "again"}}


def test_a_file_that_is_no_database_is_named_and_put_aside_when_asked(tmp_path):
    content = b"not a database, " * 1000
    (tmp_path / "completions.sqlite").write_bytes(content)
    with pytest.raises(StoreError, match="verify.* puts a damaged"):
        Store(tmp_path)
    assert len(maft.verify(tmp_path, repair=True)) == 1
    assert len(Store(tmp_path)) == 0
    assert (tmp_path / "damaged-completions.sqlite").read_bytes() == content


@pytest.mark.parametrize("number", [1, 7])
def test_a_store_of_another_version_is_refused(store, number):
    store.put([("k", {"text": "kept"})])
    store._connection.execute(f"PRAGMA user_version={number}")
    with pytest.raises(StoreError, match=f"format {number}, not 2"):
        Store(store.folder)


def test_a_full_disk_says_so_and_keeps_what_is_there(store):
    store.put([("old", {"text": "kept"})])
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count={pages + 1}")
    with pytest.raises(StoreError, match="full.*Free some space"):
        store.put([(f"new {i}", {"text": "x" * 5000}) for i in range(20)])
    assert store.get(["old"]) == {"old": {"text": "kept"}} and len(store) == 1


def test_a_full_disk_says_so_when_a_tokenizer_is_saved(tmp_path, model):
    tokenizer = load_tokenizer(model)
    with pytest.raises(StoreError, match="No space left.*Free some space"), explained(tmp_path):
        tokenizer.backend_tokenizer.save("/dev/full")


def test_a_read_only_store_says_so(store):
    store._connection.execute("PRAGMA query_only=ON")
    with pytest.raises(StoreError, match="readonly.*name another `runs_dir`"):
        store.put([("k", {"text": "new"})])


def test_a_place_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="runs_dir"):
        Store(tmp_path / "file" / "runs")


def fill(folder):
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")


def test_a_checkpoint_is_made_once(store):
    folder = make_checkpoint(store.folder, "key", fill)
    assert make_checkpoint(store.folder, "key", lambda new: pytest.fail("made twice")) == folder
    assert find_checkpoint(store.folder, "other") is None


def test_a_checkpoint_is_there_whole_or_not_at_all(store):
    def fails(folder):
        fill(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_checkpoint(store.folder, "key", fails)
    assert find_checkpoint(store.folder, "key") is None
    assert os.listdir(store.folder / "checkpoints") == []


DAMAGE = {
    "altered": lambda folder: (folder / "model.safetensors").write_bytes(b"weighty"),
    "cut off": lambda folder: (folder / "model.safetensors").write_bytes(b"weight"),
    "gone": lambda folder: (folder / "config.json").unlink(),
    "added": lambda folder: (folder / "adapter_config.json").write_text("{}"),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "manifest altered": lambda folder: (folder / "manifest.json").write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_is_named_put_aside_and_made_again(store, damage):
    folder = make_checkpoint(store.folder, "key", fill)
    damage(folder)
    with pytest.warns(
        StoreWarning, match="checkpoint .*key is damaged .*json|safetensors.: it is made"
    ):
        assert find_checkpoint(store.folder, "key") is None
    assert make_checkpoint(store.folder, "key", fill) == folder == find_checkpoint(store.folder, "key")
    assert sorted(os.listdir(folder.parent)) == [".damaged-key", "key"]


def test_a_damaged_checkpoint_answers_nothing(store):
    """Who has its path from elsewhere, the studio for one, asks for its identity first."""
    folder = make_checkpoint(store.folder, "key", fill)
    assert model_identity(folder)
    (folder / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(StoreError, match="model.safetensors.: run its study again"):
        model_identity(folder)


def test_a_models_identity_is_its_content(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        fill(tmp_path / name)
    (tmp_path / "b" / "training.json").write_text("a log is no part of a model")
    assert model_identity(tmp_path / "a") == model_identity(tmp_path / "b")
    (tmp_path / "b" / "model.safetensors").write_bytes(b"other weights")
    assert model_identity(tmp_path / "a") != model_identity(tmp_path / "b")


def test_the_database_survives_a_writer_that_dies(tmp_path):
    store = Store(tmp_path)
    store.put([("k", {"text": "kept"})])
    store._connection.execute("BEGIN IMMEDIATE")
    store._connection.execute("INSERT INTO completions VALUES ('half', '{}', '')")
    store._connection.close()
    assert len(Store(tmp_path)) == 1
    assert sqlite3.connect(tmp_path / "completions.sqlite").execute(
        "PRAGMA integrity_check"
    ).fetchone() == ("ok",)
