"""The benchmarks of speed: both orders of work say the same; a random model can be measured."""

import pytest

from benchmarks import seven_billion, speed
from maft_lib.backends import Completion, generate
from maft_lib.backends.opening import open_backend
from maft_lib.backends.transformers import TransformersBackend
from maft_lib.config import Config
from maft_lib.society import base_society
from maft_lib.study import problems


@pytest.fixture
def config(config):
    return config.replace(num_eval=2, max_tokens=32)


@pytest.fixture
def backend():
    return TransformersBackend(Config(device="cpu", num_workers=1))


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
    assert sizes == [6, 6, 6]  # answers, summaries, critics
    del sizes[:]
    alone = speed.measure(Counting(), asked, config, one_at_a_time=True)
    assert sizes == [1] * 18
    assert len(said) == 18 and all(len(texts) == 1 for texts in said.values())
    assert together["tokens"] == alone["tokens"] and together["responses"] == alone["responses"] == 18
    assert 0 <= together["overhead"] < 1


def test_a_comparison_has_both_orders_of_every_backend(config, backend):
    asked = problems("arithmetic", "eval", config)
    frame = speed.compare_orders([(backend, backend)], asked, config, num_alone=1)
    assert list(frame.order) == ["one at a time", "lock-step batches"]
    assert list(frame.problems) == [1, 2]
    slow, fast = frame["tokens/s"]
    assert frame["speed-up"].iloc[1] == pytest.approx(fast / slow)


def test_plain_generate_counts_what_it_writes(config):
    row = speed.measure(speed.Plain(config), problems("arithmetic", "eval", config), config)
    assert 18 <= row["tokens"] <= 18 * 32


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


def test_a_random_model_answers_and_can_be_trained(config, tmp_path):
    shape = {**seven_billion.MISTRAL_7B, "hidden_size": 64, "intermediate_size": 96}
    shape |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    folder = seven_billion.write_random_model(tmp_path / "random", shape, "float32")
    assert seven_billion.write_random_model(folder, shape) == folder
    random = config.replace(model_name_or_path=str(folder), max_tokens=20, num_workers=1)
    society = base_society(str(folder), 2)
    row = speed.measure(open_backend(random).inner, problems("arithmetic", "eval", random), random)
    assert row["tokens"] == row["responses"] * 20  # of the fixed length
    assert len({agent.model for agent in society.generators}) == 1
    ways = {name: way for name, way in seven_billion.WAYS.items() if "optim" not in way}
    frame = seven_billion.measure_training(folder, seven_billion.lessons(4, 60), random, ways)
    assert list(frame.way) == list(ways) and (frame["tokens/s"] > 0).all()
    full, lora = frame.checkpoint
    assert lora < full / 10
    assert not (tmp_path / "runs" / "measured").exists()
    assert len(generate(open_backend(random), [])) == 0
