"""What is prepared for a GPU: the ten minutes' benchmark at toy size, vLLM's batch-invariant mode."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from benchmarks import gpu
from maft_lib.backends import Request, Sampling, vllm
from maft_lib.backends.opening import bare_backend

ROOT = Path(__file__).parents[1]


def rows(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.skipif(find_spec("vllm") is not None, reason="shows what is done without vLLM")
def test_the_ten_minutes_of_a_gpu_as_a_toy(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu", "--toy", "--folder", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=540)
    found = rows(tmp_path / "gpu.jsonl")
    assert list(dict.fromkeys(row["part"] for row in found)) == gpu.NAMES
    numbers = {f"{row['part']}: {row['what']}": row["number"] for row in found}
    unmeasured = [what for what, number in numbers.items() if number is None]
    assert unmeasured == [
        "engine: left out: needs vLLM",
        "invariant: left out: needs vLLM and a GPU",
        "seven_billion: all parameters, 8-bit states: needs a GPU",
    ]
    assert numbers["transformers: float32, texts that differ alone"] == 0
    assert all(row["seconds"] >= 0 for row in found if row["number"] is not None)


def endless(config, sizes):
    """A part that waits for a process with a session of its own."""
    sleeper = subprocess.Popen(["sleep", "60"], start_new_session=True)
    yield "first", sleeper.pid, ""
    sleeper.wait()


def broken(config, sizes):
    """A part that fails."""
    yield 1 / 0


def test_a_part_ends_at_its_limit_and_one_that_fails_says_so(tmp_path):
    for part, limit in ((endless, 25), (broken, 60)):
        gpu.run(part, limit, None, gpu.TOY, tmp_path / "gpu.jsonl")
    found = rows(tmp_path / "gpu.jsonl")
    assert [row["what"] for row in found] == [
        "first",
        "stopped at its limit, after 25 s",
        "failed: ZeroDivisionError: division by zero",
    ]
    assert not psutil.pid_exists(found[0]["number"]) or (
        psutil.Process(found[0]["number"]).status() == psutil.STATUS_ZOMBIE
    )


def test_batch_invariance_is_switched_on_before_the_engine_starts_and_in_the_key(
    config, model, monkeypatch
):
    started = []

    def start(*arguments, **settings):
        started.append((os.environ["VLLM_BATCH_INVARIANT"], "batch_invariant" in settings))
        raise RuntimeError

    monkeypatch.setenv("VLLM_BATCH_INVARIANT", "0")
    monkeypatch.setattr(vllm, "_version", lambda: "vllm 0")
    monkeypatch.setattr(vllm, "on_cpu", lambda: False)
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=start))
    request = Request(model, ({"role": "user", "content": "What is 1+1?"},), Sampling(), 0)
    keys = []
    for on in (True, False):
        backend = bare_backend(config.replace(backend="vllm", batch_invariant=on))
        with pytest.raises(RuntimeError):
            backend.hold(model)
        keys.append(backend.describe(request))
    assert started == [("1", False), ("0", False)]
    assert keys[0] == [*keys[1], "batch invariant"]
