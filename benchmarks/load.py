"""What many debates ask of memory and disk: python benchmarks/load.py [PROBLEMS, 5000]

Five scripted agents debate arithmetic for three rounds, summaries included, through the store, as an
own process would with a model of 200-word responses; then once more, when all comes from the store.
Prints how memory grows from part to part of the problems, the size of the store beside the text in it,
the time of a lookup and what a notebook shows. Seed 0.
"""

import random
import resource
import sys
import tempfile
import time
from pathlib import Path

import psutil
from tabulate import tabulate

import maft_lib as maft
from maft_lib.backends.cached import CachedBackend
from maft_lib.backends.scripted import ScriptedBackend
from maft_lib.debate import base_society, run_debates
from maft_lib.explorer import DebateExplorer
from maft_lib.store import Store
from maft_lib.tasks import load_problems

WORDS = (
    "first we add the two numbers then multiply by three which gives 12 and since total is what was "
    "asked subtract 7 from it so that remaining apples cost $4 each therefore answer must be half of 96"
).split()


def response(request):
    """200 words and an answer, another for every seed."""
    chance = random.Random(request.seed)
    return f"{' '.join(chance.choices(WORDS, k=200))}. The answer is \\boxed{{{chance.randrange(9)}}}."


def debate(num_problems, folder):
    """The debates, the backend that they went through and the seconds that they took."""
    config = maft.load_config("smoke", num_agents=5, num_rounds=3, runs_dir=folder)
    problems = load_problems("arithmetic", "eval", num_problems, 0)
    backend = CachedBackend(ScriptedBackend(response, keep=False), Store(folder))
    start = time.perf_counter()
    debates = run_debates(base_society("scripted", 5), problems, config, backend)
    return debates, backend, time.perf_counter() - start


def lookup_milliseconds(store):
    """A completion's share of looking all of them up, 500 at a time, in random order."""
    keys = [key for (key,) in store._connection.execute("SELECT key FROM completions")]
    random.Random(0).shuffle(keys)
    start = time.perf_counter()
    for part in range(0, len(keys), 500):
        assert len(store.get(keys[part : part + 500])) == len(keys[part : part + 500])
    return 1_000 * (time.perf_counter() - start) / len(keys)


def single_lookup_milliseconds(store, num=2_000):
    keys = [key for (key,) in store._connection.execute("SELECT key FROM completions LIMIT ?", (num,))]
    start = time.perf_counter()
    for key in keys:
        store.get([key])
    return 1_000 * (time.perf_counter() - start) / len(keys)

def megabytes():
    return psutil.Process().memory_info().rss / 2**20


def main():
    num = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000
    with tempfile.TemporaryDirectory() as folder:
        m0 = megabytes()
        debates, backend, seconds = debate(num, folder)
        text = sum(len(t.response) + len(t.summary or "") for d in debates for a in d.turns for t in a)
        print("rss", m0, megabytes(), "peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "text", text/2**20)
        size = sum(path.stat().st_size for path in Path(folder).glob("completions*"))
        print("store", size/2**20, size/text, "n", len(backend.store), backend.num_calls, seconds)
        print("lookup", lookup_milliseconds(backend.store), single_lookup_milliseconds(backend.store))
        m=megabytes()
        del debates
        debates, backend, seconds = debate(num, folder)
        print("again", m, megabytes(), "peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, seconds, backend.num_calls)
        t=time.perf_counter(); h=len(debates[0]._repr_html_()); print("show", time.perf_counter()-t, h)
        t=time.perf_counter(); e=DebateExplorer(debates); print("explorer", time.perf_counter()-t)


if __name__ == "__main__":
    main()
