"""Bad answers of a server that speaks OpenAI's protocol, and addresses that lead to none."""

import json

NONE = ["OPENAI_BASE_URL"]
AGAIN = ["no answer after all retries", "run again later"]
REFUSED = ["the server refuses this"]


def as_json(body):
    """A body as a server sends it."""
    return json.dumps(body).encode()


def choice(**message):
    """A body with one choice."""
    return {"choices": [{"message": message, "finish_reason": "stop"}]}


GOOD = choice(role="assistant", content="2")

# (status, headers, body, words); a body that is no bytes is JSON
ROWS = {
    "nothing": (200, {}, b"", NONE),
    "HTML": (200, {"Content-Type": "text/html"}, b"<html>gateway</html>", NONE),
    "half a body": (200, {}, json.dumps(GOOD).encode()[:40], NONE),
    "null": (200, {}, None, NONE),
    "an empty object": (200, {}, {}, NONE),
    "no choices": (200, {}, {"choices": []}, NONE),
    "no message": (200, {}, {"choices": [{"text": "2"}]}, NONE),
    "a number for words": (200, {}, choice(content=2), NONE),
    "usage in words": (200, {}, {**GOOD, "usage": {"prompt_tokens": "many"}}, NONE),
    "less than it announces": (200, {"Content-Length": "9999"}, b"{}", AGAIN),
    "a bad request": (400, {}, {"error": {"message": "top_p is wrong"}}, [*REFUSED, "top_p"]),
    "a refused key": (401, {}, {"error": {"message": "sk-secret"}}, ["does not accept OPENAI_API_KEY"]),
    "no access": (403, {}, {"error": {"message": "not in your\nregion"}}, [*REFUSED, "region"]),
    "no such model": (404, {}, {"error": {"message": "no model"}}, [*REFUSED, "no model"]),
    "too many requests": (429, {}, {"error": {"message": "slow down"}}, [*AGAIN, "slow down"]),
    "a broken server": (500, {}, {"error": {"message": {"nested": "x"}}}, AGAIN),
    "a bad gateway": (502, {"Content-Type": "text/html"}, b"<html>502</html>", AGAIN),
}

# The same while somebody listens: bodies of event streams
STREAMS = {
    "no event": (b"", NONE),
    "only the end": (b"data: [DONE]\n\n", [*NONE, "ended before the answer"]),
    "broken JSON": (b"data: {\n\ndata: [DONE]\n\n", NONE),
    "no end": (
        b'data: {"choices": [{"index": 0, "delta": {"content": "2"}}]}\n\n',
        [*NONE, "ended before"],
    ),
    "an error in the middle": (
        b'data: {"error": {"message": "overloaded"}}\n\n',
        [*NONE, "overloaded"],
    ),
}

# (OPENAI_BASE_URL, OPENAI_API_KEY, words)
ADDRESSES = {
    "no protocol": ("localhost:8000/v1", "key", ["OPENAI_BASE_URL is no address"]),
    "no host": ("http:///v1", "key", ["OPENAI_BASE_URL"]),
    "no such port": ("http://127.0.0.1:99999/v1", "key", ["OPENAI_BASE_URL"]),
    "nobody there": ("http://127.0.0.1:9/v1", "key", AGAIN),
    "no key": ("http://127.0.0.1:9/v1", "", ["OPENAI_API_KEY is not set"]),
    "a key in two lines": ("http://127.0.0.1:9/v1", "key\nkey", ["OPENAI_API_KEY is not set to a key"]),
}
