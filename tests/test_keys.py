"""The keys of the store, pinned: whoever changes one makes every finished run be computed again."""

from maft_lib.backends import Request, Sampling
from maft_lib.backends.opening import bare_backend
from maft_lib.store.files import content_key
from maft_lib.training.finetuning import checkpoint_key, hyper_parameters

ASKED = ({"role": "user", "content": "What is the result of 1+2*3+4-5*1?"},)
CONTINUED = (
    *ASKED,
    {"role": "assistant", "content": "2*3=6. The answer is \\boxed{6}."},
    {"role": "user", "content": "Others say 7. Look again: 1+2*3+4-5*1?"},
)
REQUESTS = (
    (ASKED, Sampling(1.0, 0.9, 40), 7),
    (CONTINUED, Sampling(1.0, 1.0, 40), 2**62),
    (ASKED, Sampling(0.0, 1.0, 12), 0),
)


def test_keys_of_completions(config, model):
    backend = bare_backend(config.replace(device="cpu"))
    keys = [content_key(backend.describe(Request(model, *request))) for request in REQUESTS]
    assert keys == [
        "1738258e247e76ccda18141cb739072a46f25ebbdd2ccc09ca70b1e95be50964",
        "070574193d362bef5d4c26a99f013266897ffd6b332b35193d8b886bacefa63e",
        "3105570c4d9d5346ced877ce68969dfb5ecdc547ec2496ea1316e76685135ff6",
    ]


def test_key_of_a_checkpoint(config, model, agent, examples):
    key = checkpoint_key(model, examples[:2], hyper_parameters(agent, config), "cpu")
    assert key == "e6f7e52c96b06892842d4a3a717f8d5ce0e7728025e89c0b986db04776686cc5"
