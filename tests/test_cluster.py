"""The Ray executor on a real cluster of several nodes on this machine, some of which are killed."""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest

from maft_lib.backends import BackendError, Request, Sampling
from maft_lib.backends import ray as cluster
from maft_lib.backends.hub import Model, identity
from maft_lib.backends.scorer import Scorer
from maft_lib.backends.transformers import TransformersBackend, _generate_texts
from maft_lib.config import Config
from maft_lib.society import Agent
from maft_lib.store import Store
from maft_lib.training import FinetuneError
from maft_lib.training.data import Example
from maft_lib.training.finetuning import checkpoint_key, hyper_parameters, make_checkpoint
from maft_lib.workers import WorkerError, run_parallel, stop_workers

pytestmark = pytest.mark.cluster

NODE = {"num_cpus": 1, "object_store_memory": 80_000_000}
# A lost node is seen within seconds; a node that a busy machine starts slowly is not given up.
HEALTH = {
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 8,
    "agent_register_timeout_ms": 120_000,
}


@pytest.fixture(scope="module")
def ray_cluster():
    """Two nodes of one CPU; the head, says Ray, has two GPUs as well."""
    from ray.cluster_utils import Cluster

    head = {**NODE, "num_gpus": 2, "_system_config": HEALTH}
    head |= {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    nodes.add_node(**NODE)
    yield nodes
    leave()
    nodes.shutdown()


def leave():
    """This process leaves its cluster; one of its own ends."""
    import ray

    ray.shutdown()


@pytest.fixture
def settings(config, ray_cluster):
    """The smoke profile, run by the CPUs of the cluster."""
    return config.replace(executor="ray", ray_address=ray_cluster.address, device="cpu")


@pytest.fixture
def opened(settings):
    return cluster.open_cluster(settings)


def requests(model, num=24):
    ask = "What is the result of {}+{}*3+4-5*1?"
    sampling = Sampling(1.0, 1.0, 64)
    return [
        Request(model, ({"role": "user", "content": ask.format(i, i % 7)},), sampling, seed=i)
        for i in range(num)
    ]


def answered(backend, asked):
    """What a backend answers, in order, less the seconds."""
    answers = {i: asdict(completion) for i, completion in backend.stream(asked)}
    return [{**answers[i], "seconds": 0} for i in range(len(asked))]


QUESTION = {"role": "user", "content": "What is the result of 1+2*3+4-5*1?"}


def finetune(config, number, examples=None):
    """Arguments of `make_checkpoint`, less the first: an agent of its own on its own examples."""
    right = {"role": "assistant", "content": f"2*3=6. Agent {number} says \\boxed{{6}}."}
    examples = examples or [Example(f"id {i}", (QUESTION, right)) for i in range(240)]
    agent = Agent(f"generation-{number}", "generator", config.base_model)
    task = (agent.model, examples, hyper_parameters(agent, config), "cpu")
    return *task, checkpoint_key(*task)


# Functions that the nodes import. Each writes what it does where the test can read it.


def note(log, *words):
    with open(log, "a") as file:  # a line is written at once
        file.write(" ".join(map(str, words)) + "\n")


def notes(log, word):
    lines = [line.split() for line in Path(log).read_text().splitlines()] if Path(log).exists() else []
    return [line[1:] for line in lines if line[0] == word]


def node_id():
    import ray

    return ray.get_runtime_context().get_node_id()


def generate_noted(log, num_nodes, name, *task):
    """A batch of generation that waits until so many nodes have begun one."""
    note(log, "begin", name, node_id())
    give_up = time.monotonic() + 120
    while len({node for _, node in notes(log, "begin")}) < num_nodes:
        assert time.monotonic() < give_up
        time.sleep(0.05)
    completions = _generate_texts(*task)
    note(log, "end", name, node_id())
    return completions


def train_noted(log, name, *task):
    note(log, "begin", name, node_id())
    folder = make_checkpoint(*task)
    note(log, "end", name, node_id())
    return folder


def note_and_sleep(log, name, seconds=0.0):
    note(log, "begin", name)
    time.sleep(seconds)
    return os.getpid()


def meet(log, num):
    """Waits until so many tasks have begun, which takes a place for each."""
    note(log, "begin")
    give_up = time.monotonic() + 120
    while len(notes(log, "begin")) < num:
        assert time.monotonic() < give_up
        time.sleep(0.05)
    return node_id()


def die(log):
    note(log, "begin")
    os._exit(1)


def kill_while(work, condition, nodes, replace=False):
    """What `work()` returns if, once `condition()` holds, the node beside the head is killed.

    Returns also that node's id.
    """
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        while not condition():
            assert not future.done(), future.result()
            time.sleep(0.02)
        (victim,) = nodes.worker_nodes
        nodes.remove_node(victim, allow_graceful=False)
        if replace:
            nodes.add_node(**NODE)
        return future.result(), victim.node_id


def test_an_address_without_a_cluster_is_one_sentence(config):
    nowhere = config.replace(executor="ray", ray_address="127.0.0.1:1")
    with pytest.raises(BackendError) as error:
        cluster.open_cluster(nowhere)
    assert "127.0.0.1:1" in str(error.value) and "ray start" in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(BackendError, match="nonsense"):
        cluster.open_cluster(config.replace(executor="ray", ray_address="nonsense"))


def test_without_ray_one_sentence_says_what_to_install(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BackendError, match=r'pip install -e "\.\[ray\]"'):
        cluster.open_cluster(config.replace(executor="ray"))


def test_every_node_has_room(settings, opened):
    assert cluster.open_cluster(settings) == opened
    assert opened.num_workers == 2


def test_a_cluster_writes_the_bytes_that_this_machine_writes(model, settings, opened, tmp_path):
    asked = requests(model)
    here = TransformersBackend(Config(device="cpu", num_workers=2, max_batch_size=5))
    there = TransformersBackend(settings.replace(max_batch_size=5))
    assert answered(there, asked) == answered(here, asked)
    conversations = [
        [*request.messages, {"role": "assistant", "content": "2*3=6. So \\boxed{6}."}]
        for request in asked[:6]
    ]
    scores = [
        Scorer(Store(tmp_path / place), config).log_likelihoods([model] * 6, conversations)
        for place, config in (("here", Config(device="cpu", num_workers=2)), ("there", settings))
    ]
    assert scores[0] == scores[1]
    assert len({node for _, node in opened.run(meet, [(tmp_path / "log", 2)] * 2)}) == 2


def test_a_lost_node_loses_its_unfinished_batches(model, settings, opened, ray_cluster, tmp_path):
    asked, log = requests(model, 40), tmp_path / "log"
    begun = iter(range(1000))

    def run(function, tasks):  # the batches of the first call, noted
        assert function is _generate_texts
        noted = [(str(log), 3, next(begun), *task) for task in tasks]
        return opened.run(generate_noted, noted)

    there = TransformersBackend(settings.replace(max_batch_size=5))
    there.run = run
    answers, victim = kill_while(
        lambda: answered(there, asked),
        lambda: len(notes(log, "begin")) == 2,
        ray_cluster,
        replace=True,
    )
    here = TransformersBackend(Config(device="cpu", num_workers=2, max_batch_size=5))
    assert answers == answered(here, asked)
    lost = [name for name, node in notes(log, "begin") if node == victim]
    assert len(lost) == 1  # the one batch that it had
    names = [name for name, _ in notes(log, "begin")]
    assert sorted(names) == sorted([*map(str, range(8)), *lost])  # no other was begun twice
    assert sorted(name for name, _ in notes(log, "end")) == sorted(map(str, range(8)))
    assert len({node for _, node in notes(log, "end")} - {victim}) == 2  # the new node, too


def test_errors_of_generation_arrive_as_themselves(opened, tmp_path):
    absent = Model(str(tmp_path / "absent"), "", "float32", "cpu")
    log = tmp_path / "log"
    batch = (str(log), 1, "one", absent, ["text"], Sampling(), [0])
    with pytest.raises(BackendError, match="absent") as error:
        list(opened.run(generate_noted, [batch]))
    assert type(error.value) is BackendError
    assert "\n" not in str(error.value)
    assert len(notes(log, "begin")) == 1  # and are not tried again
    with pytest.raises(TypeError) as error:  # a fault of the program shows where it is
        list(opened.run(note_and_sleep, [(log, "two", "long")]))
    assert "in note_and_sleep" in str(error.value.__cause__)


def test_who_stops_early_drops_batches_that_have_not_begun(opened, tmp_path):
    log = tmp_path / "log"
    results = opened.run(note_and_sleep, [(log, i, 0.1) for i in range(50)])
    next(results)
    results.close()
    stopped = opened.run(note_and_sleep, [(log, 100 + i, 0.1) for i in range(50)])
    next(stopped)
    stop_workers()  # as another study's failure does
    with pytest.raises(WorkerError, match="run again"):
        list(stopped)
    assert dict(opened.run(note_and_sleep, [(log, 200)]))  # the cluster is there for the next
    begun = [int(name) for (name,) in notes(log, "begin")]
    assert all(1 <= sum(n // 100 == call for n in begun) <= 4 for call in range(3)), begun


def test_a_lost_node_loses_its_unfinished_finetune(settings, opened, ray_cluster, tmp_path):
    log, runs = tmp_path / "log", tmp_path / "runs"
    tasks = [finetune(settings.replace(per_device_train_batch_size=4), n) for n in (1, 2)]
    noted = [(str(log), i, str(runs), *task) for i, task in enumerate(tasks)]
    there, victim = kill_while(
        lambda: dict(opened.run(train_noted, noted)),
        lambda: len(list((runs / "checkpoints").glob(".new-*"))) == 2,  # both are in training
        ray_cluster,
    )
    (lost,) = [name for name, node in notes(log, "begin") if node == victim]
    assert sorted(name for name, _ in notes(log, "begin")) == sorted(["0", "1", lost])
    assert sorted(name for name, _ in notes(log, "end")) == ["0", "1"]
    local = [(str(tmp_path / "here"), *task) for task in tasks]
    here = dict(run_parallel(make_checkpoint, local, 2))
    for i in range(2):
        assert there[i].parent == runs / "checkpoints"
        weights = [(folder / "model.safetensors").read_bytes() for folder in (there[i], here[i])]
        assert weights[0] == weights[1]
    assert identity(str(there[0])) != identity(str(there[1]))
    # a task that is given again finds what is finished
    made = (there[0] / "model.safetensors").stat().st_mtime_ns
    assert dict(opened.run(train_noted, noted)) == there
    assert (there[0] / "model.safetensors").stat().st_mtime_ns == made


def test_errors_of_finetuning_arrive_as_themselves(opened, settings, tmp_path):
    long = Example("id", (QUESTION, {"role": "assistant", "content": "1+1=2, " * 400}))
    log = tmp_path / "log"
    tasks = [(str(log), n, str(tmp_path / "runs"), *finetune(settings, n, [long])) for n in range(4)]
    with pytest.raises(FinetuneError, match="not truncated") as error:
        list(opened.run(train_noted, tasks))
    assert type(error.value) is FinetuneError
    # there is one place: when one fails, Ray begins the next before it can be cancelled
    assert len(notes(log, "begin")) < len(tasks)


def test_who_stops_early_cancels_finetunes(opened, tmp_path):
    log = tmp_path / "log"
    finetunes = opened.run(note_and_sleep, [(log, i, 0.5) for i in range(50)])
    next(finetunes)
    finetunes.close()
    assert dict(opened.run(note_and_sleep, [(log, 100)]))
    assert 1 <= len([name for (name,) in notes(log, "begin") if int(name) < 100]) <= 2


def test_what_kills_its_worker_again_and_again_is_said(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "RETRIES", 1)
    log = tmp_path / "log"
    with pytest.raises(WorkerError, match="lost 2 times") as error:
        list(opened.run(die, [(log,)]))
    assert "\n" not in str(error.value)
    assert len(notes(log, "begin")) == 2


def test_the_cluster_decides_what_auto_means(settings, opened):
    on_gpus = cluster.open_cluster(settings.replace(device="auto"))
    assert opened.device == "cpu" and on_gpus.device == "cuda"
    assert on_gpus.num_workers == 2  # one for each GPU
    with pytest.raises(BackendError, match="has 3 GPUs"):
        list(on_gpus.run(die, [()], num_gpus=3))


def test_without_an_address_this_machine_is_the_cluster(config, opened, tmp_path):
    leave()
    alone = cluster.open_cluster(config.replace(executor="ray", device="cpu", num_workers=1))
    assert alone.num_workers == 1
    assert len(dict(alone.run(note_and_sleep, [(tmp_path / "log", i) for i in range(3)]))) == 3
