"""What many debates ask of memory and disk: python -m benchmarks.load [PROBLEMS, 5000]

Five scripted agents debate arithmetic for three rounds, one fifth of the problems after another, with
responses of 200 words and one store. Prints the memory after each part, the size of the store beside
the text in it and the time of a lookup; then, with all problems at once and all from the store, what
the debates take, and how long a notebook needs to show one and to open the explorer on all. Seed 0.
"""

import random
import resource
import sys
import tempfile
import time
from collections import deque
from contextlib import closing
from pathlib import Path

import psutil

import maft_lib as maft
from maft_lib.backends.opening import CachedBackend
from maft_lib.debate import run_debates
from maft_lib.lab import html
from maft_lib.lab.explorer import DebateExplorer
from maft_lib.society import base_society
from maft_lib.store import DATABASE, Store
from maft_lib.tasks import load_problems
from tests.scripted import ScriptedBackend

NUM_PARTS = 5
TEXT = (
    "first we add the two numbers then multiply by three which gives 12 and since total is what was "
    "asked subtract 7 from it so that remaining apples cost $4 each therefore answer must be half of 96"
)
WORDS = TEXT.split()


def response(request):
    """200 words and an answer, others for every seed."""
    chance = random.Random(request.seed)
    return f"{' '.join(chance.choices(WORDS, k=200))}. The answer is \\boxed{{{chance.randrange(9)}}}."


def scripted(store):
    """The backend of all debates, which keeps no request."""
    backend = ScriptedBackend(response)
    backend.requests = deque(maxlen=0)
    return CachedBackend(backend, store)


def debate(problems, backend):
    """Five agents' debates of three rounds, with summaries."""
    config = maft.load_config("smoke", num_agents=5, num_rounds=3)
    return run_debates(base_society("scripted", 5), problems, config, backend)


def num_characters(debates):
    """Of what was generated: responses and summaries."""
    turns = (turn for debate in debates for agent in debate.turns for turn in agent)
    return sum(len(turn.response) + len(turn.summary or "") for turn in turns)


def in_parts(problems, backend):
    """Debates one part of the problems after another; yields the characters that each generated."""
    size = -(-len(problems) // NUM_PARTS)
    for start in range(0, len(problems), size):
        yield num_characters(debate(problems[start : start + size], backend))


def lookup_milliseconds(store, num, together):
    """A completion's share of looking `num` of them up, so many at a time, in random order."""
    keys = [key for (key,) in store._connection.execute("SELECT key FROM completions")]
    keys = random.Random(0).sample(keys, min(num, len(keys)))
    start = time.perf_counter()
    found = [len(store.get(keys[k : k + together])) for k in range(0, len(keys), together)]
    assert sum(found) == len(keys)
    return 1_000 * (time.perf_counter() - start) / len(keys)


def megabytes():
    """This process's memory now, and the most that it has had."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return f"{psutil.Process().memory_info().rss / 2**20:.0f} MiB, {most:.0f} MiB at most"


def timed(action):
    """What `action()` returns, and its seconds."""
    start = time.perf_counter()
    return action(), time.perf_counter() - start


def main():
    num_problems = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000
    problems = load_problems("arithmetic", "eval", num_problems, 0)
    with tempfile.TemporaryDirectory() as folder, closing(Store(folder)) as store:
        backend, characters = scripted(store), 0
        print(f"memory before: {megabytes()}")
        for more in in_parts(problems, backend):
            characters += more
            print(f"memory after {len(store):,} completions: {megabytes()}")
        size = (Path(folder) / DATABASE).stat().st_size
        print(f"store: {size / characters:.2f} bytes for each of {characters:,} characters")
        for together in (500, 1):
            taken = lookup_milliseconds(store, 20_000, together)
            print(f"lookup, {together} together: {taken:.3f} ms a completion")
        debates, seconds = timed(lambda: debate(problems, backend))
        print(f"all from the store: {seconds:.1f} s; memory with all debates: {megabytes()}")
        shown, seconds = timed(lambda: html(debates[0]))
        print(f"one debate shown: {1_000 * seconds:.0f} ms, {len(shown):,} bytes")
        _, seconds = timed(lambda: DebateExplorer(debates))
        print(f"explorer opened: {seconds:.1f} s")


if __name__ == "__main__":
    main()
