"""What a debate's order of work and a swap of weights take: python benchmarks/speed.py PROFILE

Debates problems of the profile in lock-step batches and one response at a time, with nothing from the
store, by every backend for local models that is installed (`maft.speed.compare_orders`). Where vLLM is,
it also swaps a changed copy of the model's weights in and out of the engine, canary included.
"""

import argparse
import tempfile
import time
from importlib.util import find_spec

from transformers import AutoModelForCausalLM

import maft_lib as maft
from maft_lib.backends import Sampling, hub
from maft_lib.backends.opening import bare_backend


def main():
    options = arguments()
    given = {"model_name_or_path": options.model, "max_tokens": options.max_tokens}
    given = {name: value for name, value in given.items() if value is not None}
    config = maft.load_config(options.profile, num_eval=options.together, **given)
    asked = maft.study.problems(config.task, "eval", config)
    frame = maft.speed.compare_orders(maft.speed.backends_here(config), asked, config, options.alone)
    print(
        frame.round({"seconds": 1, "tokens/s": 1, "overhead": 4, "speed-up": 1}).to_string(index=False)
    )
    if find_spec("vllm"):
        print("seconds a swap:", *(f"{seconds:.2f}" for seconds in swap_seconds(config)))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("profile")
    parser.add_argument("--model", help="a folder or name in place of the profile's model")
    parser.add_argument("--max-tokens", type=int)
    parser.add_argument("--together", type=int, default=16, help="problems debated in lock-step")
    parser.add_argument("--alone", type=int, default=1, help="problems debated a response at a time")
    return parser.parse_args()


def swap_seconds(config, times=6):
    """Seconds of swaps between the base model and a copy of it that was changed a little."""
    from maft_lib.backends.engine import open_engine

    backend = bare_backend(config.replace(backend="vllm"))
    engine = open_engine(backend.settings)
    with tempfile.TemporaryDirectory() as folder:
        names = (changed_copy(config.base_model, folder), str(hub.model_folder(config.base_model)))
        models = [hub.Model(name, hub.identity(name), config.dtype, "cpu") for name in names]
        for model in models * (times // 2):
            start = time.perf_counter()
            list(engine.generate(model, [], Sampling()))
            yield time.perf_counter() - start


def changed_copy(name, folder):
    """The model with other final norms, in a folder of its own."""
    model = AutoModelForCausalLM.from_pretrained(hub.model_folder(name))
    model.model.norm.weight.data *= 1.01
    model.save_pretrained(folder)
    hub.load_tokenizer(name).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
