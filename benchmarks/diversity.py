"""How fast a study is scored: python benchmarks/diversity.py [NUMBER OF EVAL PROBLEMS]

Runs Figure 1's multiagent and single-agent studies of profile laptop (five iterations, arithmetic, seed
0), 200 eval problems unless told otherwise, from the store where it has them. Then times, with a store
of its own, the negative log-likelihood of all critics' last responses after each iteration, by every
other critic (`diversity.negative_log_likelihood`), for both contexts.
"""

import sys
import tempfile
import time

import maft_lib as maft
from maft_lib.backends.scorer import Scorer
from maft_lib.store import Store


def main():
    config = maft.load_config("laptop", num_eval=int(sys.argv[1]) if len(sys.argv) > 1 else 200)
    methods = ("multiagent_ft", "single_agent_ft")
    results = maft.run_studies([(method, config.task, config) for method in methods])
    for context in ("speaker", "listener"):
        with tempfile.TemporaryDirectory() as folder:
            scorer = Scorer(Store(folder), config)
            scorer.log_likelihoods([config.base_model], [results[0].evaluations[0][0].conversation(0)])
            for result in results:
                already, start = scorer.num_calls, time.perf_counter()
                for society, debates in zip(result.societies, result.evaluations):
                    maft.diversity.negative_log_likelihood(debates, society, scorer, context=context)
                seconds, read = time.perf_counter() - start, scorer.num_calls - already
                print(f"{context}, {result.method}: {read:,} responses scored in {seconds:.1f} s")


if __name__ == "__main__":
    main()
