"""Bad arguments of functions on debates, scores and tables: each a call and words of its error.

All are plain `ValueError`s: what is wrong is the call, and nothing that a study reads.
"""

import math
from dataclasses import replace

import maft_lib as maft
from maft_lib.metrics import diversity
from maft_lib.society import Society, base_society
from maft_lib.study import check_disjoint
from tests.conftest import debate, problem
from tests.scripted import ScriptedBackend

TWO = [debate([["2", "2"], ["2", "3"]], "2", f"q{i}") for i in range(2)]
ONCE = [debate([["2"], ["2"]], "2")]  # one round
THREE = [debate([["2", "2"]] * 3, "2")]  # three agents
UNFINISHED = [replace(TWO[0], turns=(TWO[0].turns[0], ()))]
SOCIETY = base_society("base", 2)
BACKEND = ScriptedBackend(lambda request: "\\boxed{2}")
CONFIG = maft.load_config("smoke")


class Silent:
    """A scorer that is never asked."""

    log_likelihoods = divergences = embeddings = None


ROWS = {
    # Agents, societies, debates
    "a society without a critic": (
        lambda: Society(SOCIETY.generators, SOCIETY.critics[:1], SOCIETY.summarizer),
        ["generator, generator, critic, summarizer", "as many"],
    ),
    "critics in the generators' place": (
        lambda: Society(SOCIETY.critics, SOCIETY.generators, SOCIETY.summarizer),
        ["critic, critic, generator", "place of its role"],
    ),
    "an explorer of words": (lambda: maft.DebateExplorer("x"), ["A str", "give"]),
    "an explorer of None": (lambda: maft.DebateExplorer([None]), ["A NoneType", "give"]),
    # Grading and votes
    "an answer that is a number": (lambda: maft.is_equivalent(5, "5", "gsm"), ["answer", "type int"]),
    "a response that is none": (lambda: maft.extract_answer(None, "gsm"), ["response", "NoneType"]),
    "a vote over numbers": (lambda: maft.majority_vote([2, 2], "gsm", 0), ["answer", "type int"]),
    # Datasets
    "w below 0": (lambda: maft.build_finetuning_data(TWO, -0.1), ["w,", "-0.1", "from 0 to 1"]),
    "w above 1": (lambda: maft.build_finetuning_data(TWO, 1.1), ["w,", "1.1", "from 0 to 1"]),
    "w that is none": (lambda: maft.build_finetuning_data(TWO, math.nan), ["w,", "nan"]),
    # Studies
    "a study by a profile's name": (
        lambda: maft.run_study("base", "arithmetic", "smoke"),
        ["config is 'smoke'", "load_config"],
    ),
    "an explorer of nothing": (lambda: maft.DebateExplorer([]), ["no debates to explore"]),
    "train problems in eval": (
        lambda: check_disjoint([problem("a")], [problem("A")]),
        ["1 problems are both", "take them out"],
    ),
    # Measures
    "likelihoods of critics that did not speak": (
        lambda: diversity.negative_log_likelihood(ONCE, SOCIETY, Silent()),
        ["second round"],
    ),
}
