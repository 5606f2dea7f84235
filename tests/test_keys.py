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
        "1d99b876f9c5769a36f9f1895e5ef4c79c473c260c3c266a40b8cd8c2d7d861d",
        "f9a65da2a224b783f5856d5d06ef885b21e22581af2cdc49b8de8860f21bce76",
        "e89031104368aedfd9b3dddb1ce67049c72aff310c2c8d1510aeb494153559a8",
    ]


def test_key_of_a_checkpoint(config, model, agent, examples):
    key = checkpoint_key(model, examples[:2], hyper_parameters(agent, config), "cpu")
    assert key == "c827f70e7fca02248eead27ea9f63a9c2ad2d8744f8c043130ea59e14feb9a29"
