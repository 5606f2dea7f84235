"""Many debates: the store grows with the text in it, the memory does not."""

import gc
import tracemalloc

from benchmarks.load import in_parts, scripted
from maft_lib.store import DATABASE, Store
from maft_lib.tasks import load_problems


def test_the_store_takes_less_than_one_and_a_half_times_its_text(tmp_path):
    store = Store(tmp_path)
    characters = sum(in_parts(load_problems("arithmetic", "eval", 40, 0), scripted(store)))
    store.close()
    assert len(Store(tmp_path)) == 40 * 5 * (3 + 2)
    assert (tmp_path / DATABASE).stat().st_size < 1.5 * characters


def test_memory_stays_flat_from_part_to_part(tmp_path):
    """Of what a part generates not a tenth is still held after it."""
    backend, characters, held = scripted(Store(tmp_path)), [], []
    tracemalloc.start()
    for num in in_parts(load_problems("arithmetic", "eval", 60, 0), backend):
        gc.collect()
        characters.append(num)
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert max(held[1:]) - held[0] < min(characters) / 10
