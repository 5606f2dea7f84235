"""Both orders of work say the same; memory is what files hold; a random model can be measured."""

import pytest

from maft_lib import random_model, speed
from maft_lib.backends import Completion, generate
from maft_lib.backends.opening import open_backend
from maft_lib.backends.transformers import TransformersBackend
from maft_lib.run import run_study
from maft_lib.society import base_society
from maft_lib.study import problems


@pytest.fixture
def config(config):
    return config.replace(num_eval=4, max_tokens=48)


@pytest.fixture
def backend():
    return TransformersBackend("cpu", num_workers=1, progress=False)


def test_one_at_a_time_is_one_request_a_call_and_says_the_same(config, backend):
    asked = problems("arithmetic", "eval", config)
    sizes, said = [], {}

    class Counting:
        name = "counting"

        def stream(self, requests):
            sizes.append(len(requests))
            for position, completion in backend.stream(requests):
                said.setdefault(requests[position].seed, set()).add(completion.text)
                yield position, completion

    together = speed.measure(Counting(), asked, config)
    assert sizes == [12, 12, 12]  # answers, summaries, critics
    del sizes[:]
    alone = speed.measure(Counting(), asked, config, one_at_a_time=True)
    assert sizes == [1] * 36
    assert len(said) == 36 and all(len(texts) == 1 for texts in said.values())
    assert together["tokens"] == alone["tokens"] and together["responses"] == alone["responses"] == 36
    assert 0 <= together["overhead"] < 1


def test_a_comparison_has_both_orders_of_every_backend(config, backend):
    asked = problems("arithmetic", "eval", config)
    frame = speed.compare_orders([(backend, backend)], asked, config, num_alone=1)
    assert list(frame.order) == ["one at a time", "lock-step batches"]
    assert list(frame.problems) == [1, 4]
    slow, fast = frame["tokens/s"]
    assert frame["speed-up"].iloc[1] == pytest.approx(fast / slow)


def test_overhead_is_the_time_outside_the_backend(config):
    class Instant:
        name = "instant"

        def stream(self, requests):
            return (
                (i, Completion("1. The answer is \\boxed{1}.", 1, 1, "stop"))
                for i in range(len(requests))
            )

    row = speed.measure(Instant(), problems("arithmetic", "eval", config), config)
    assert row["overhead"] > 0.5


def test_memory_of_agents_is_what_their_files_hold(config):
    small = config.replace(num_train=8, num_agents=2, num_iterations=1, num_workers=1)
    full, lora = (
        run_study(method, "arithmetic", small).societies[-1]
        for method in ("multiagent_ft", "multiagent_ft_lora")
    )
    frame = speed.memory_of_agents(full, lora, "float32")
    base = 779_392 * 4
    trained = len({agent.model for agent in (*full.generators, *full.critics)} - {small.base_model})
    assert speed.weights_in(small.base_model, "float32") == base
    assert frame.bytes.iloc[0] == (1 + trained) * base and frame.bytes.iloc[1] == base
    assert base < frame.bytes.iloc[2] < 3 * base
    assert speed.weights_in(small.base_model, "bfloat16") == base // 2


def test_a_random_model_answers_and_can_be_trained(config, tmp_path):
    shape = {**random_model.MISTRAL_7B, "hidden_size": 64, "intermediate_size": 96}
    shape |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    folder = random_model.write_random_model(tmp_path / "random", shape, "float32")
    assert random_model.write_random_model(folder, shape) == folder
    random = config.replace(model_name_or_path=str(folder), max_tokens=20, num_workers=1)
    society = base_society(str(folder), 2)
    row = speed.measure(open_backend(random).inner, problems("arithmetic", "eval", random), random)
    assert row["tokens"] == row["responses"] * 20  # of the fixed length
    assert len({agent.model for agent in society.generators}) == 1
    ways = {name: way for name, way in random_model.WAYS.items() if "optim" not in way}
    frame = random_model.measure_training(folder, random_model.lessons(4, 60), random, ways)
    assert list(frame.way) == list(ways) and (frame["tokens/s"] > 0).all()
    full, lora = frame.checkpoint
    assert lora < full / 10
    assert not (tmp_path / "runs" / "measured").exists()
    assert len(generate(open_backend(random), [])) == 0
