"""A small server that speaks OpenAI's protocol, with the project's own engine and trainer behind it.

Chat completions come from the transformers backend, fine-tuning jobs are trained by the project's
trainer; files, jobs and events are kept in memory. Faults can be injected. For tests on localhost.

    with Server(model_folder, runs_dir, key="...") as server:
        server.url                                   # http://127.0.0.1:PORT/v1
        server.faults["/chat/completions"] = ["500", "drop"]     # what the next requests there meet
"""

from __future__ import annotations

import email
import json
import queue
import socket
import threading
import time
import traceback
from concurrent.futures import Future
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from maft_lib.backends import Request, Sampling, generate, hub
from maft_lib.backends.transformers import TransformersBackend
from maft_lib.config import Config
from maft_lib.training.data import Example
from maft_lib.training.finetuning import checkpoint_key, make_checkpoint, training_log
from maft_lib.workers import run_parallel

BASE = "miniature"  # the name under which the base model is served
BASE_LEARNING_RATE = 1.0e-4  # times a job's multiplier
NUM_WORKERS = 2
HANG = 30  # seconds


class Refused(Exception):
    """An answer with an error status."""

    def __init__(self, status: int, message: object):
        super().__init__(message)
        self.status, self.message = status, message


@dataclass
class Server:
    """Serves the model of a folder, and what its jobs make of it into `runs_dir`.

    `faults[path]`, or `faults["POST path"]`, lists what the next requests there meet, see
    `Handler.fault`; one that begins with `after_` strikes when the work is done.
    `seen` lists (method, path) of all requests, `jobs` all jobs by id.
    """

    model: str
    runs_dir: Path
    key: str
    max_active_jobs: int = 100
    job_seconds: float = 0.0  # a job takes at least so long
    files: dict[str, str] = field(default_factory=dict)
    jobs: dict[str, dict] = field(default_factory=dict)
    events: dict[str, list[dict]] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)
    seen: list[tuple[str, str]] = field(default_factory=list)
    chats: list[dict] = field(default_factory=list)
    refuses: dict[str, tuple[int, object]] = field(
        default_factory=dict
    )  # by fields that must not come: status, words
    says: object = None  # the body of the next chat completions: JSON values, or bytes of a stream

    def __post_init__(self) -> None:
        self.models = {BASE: self.model}
        self.lock = threading.Lock()
        self.in_flight = self.most_in_flight = 0  # chat requests
        self.waiting: queue.SimpleQueue = queue.SimpleQueue()
        self.backend = TransformersBackend(Config(device="cpu", num_workers=NUM_WORKERS))
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"state": self}))
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def __enter__(self) -> Server:
        for target in (self.http.serve_forever, self._answer_all):
            threading.Thread(target=target, daemon=True).start()
        return self

    def __exit__(self, *error) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.waiting.put(None)

    def count(self, method: str, path: str) -> int:
        """How many requests with this method came to this path."""
        return self.seen.count((method, path))

    # Chat: requests that wait together are one batch; a response does not depend on its batch

    def chat(self, asked: dict) -> dict:
        """A chat completion."""
        if asked["model"] not in self.models:
            raise Refused(404, f"The model `{asked['model']}` does not exist or is not for {self.key}.")
        for names, (status, message) in self.refuses.items():
            if asked.keys() >= set(names.split()):
                raise Refused(status, message)
        if self.says is not None:
            return self.says
        limit = asked.get("max_tokens") or asked["max_completion_tokens"]
        sampling = Sampling(asked["temperature"], asked.get("top_p", 1.0), limit)
        model = self.models[asked["model"]]
        seed = asked.get("seed", 0)
        request = Request(model, tuple(asked["messages"]), sampling, seed)
        future: Future = Future()
        self._count_in_flight(1)
        self.waiting.put((request, future))
        completion = future.result()
        self._count_in_flight(-1)
        read, written = completion.num_prompt_tokens, completion.num_completion_tokens
        message = {"role": "assistant", "content": completion.text}
        choice = {"index": 0, "message": message, "finish_reason": completion.finish_reason}
        usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        head = {"id": "chatcmpl-1", "object": "chat.completion", "created": int(time.time())}
        return {**head, "model": asked["model"], "choices": [choice], "usage": usage}

    def _count_in_flight(self, change: int) -> None:
        with self.lock:
            self.in_flight += change
            self.most_in_flight = max(self.most_in_flight, self.in_flight)

    def _answer_all(self) -> None:
        while (first := self.waiting.get()) is not None:
            batch = [first]
            time.sleep(0.02)  # what is sent together arrives together
            while not self.waiting.empty() and (other := self.waiting.get()) is not None:
                batch.append(other)
            try:
                for (_, future), completion in zip(
                    batch, generate(self.backend, [request for request, _ in batch])
                ):
                    future.set_result(completion)
            except Exception as error:
                for _, future in batch:
                    future.set_exception(error)

    # Fine-tuning jobs: each trained in a worker, by the project's own trainer

    def upload(self, content: str) -> dict:
        """Keeps a training file."""
        with self.lock:
            name = f"file-{len(self.files) + 1}"
            self.files[name] = content
        head = {"id": name, "object": "file", "created_at": int(time.time()), "status": "processed"}
        return {**head, "bytes": len(content), "filename": "train.jsonl", "purpose": "fine-tune"}

    def create_job(self, asked: dict) -> dict:
        """Begins a job, unless too many run."""
        with self.lock:
            active = sum(job["status"] == "running" for job in self.jobs.values())
            if active >= self.max_active_jobs:
                raise Refused(429, f"the maximum of {self.max_active_jobs} active jobs is reached")
            if asked["model"] not in self.models:
                raise Refused(404, f"The model `{asked['model']}` cannot be fine-tuned.")
            name = f"ftjob-{len(self.jobs) + 1}"
            job = {"id": name, "object": "fine_tuning.job", "created_at": int(time.time())}
            job |= {"status": "running", "model": asked["model"], "fine_tuned_model": None}
            job |= {"training_file": asked["training_file"], "method": asked["method"]}
            job |= {"seed": asked["seed"], "metadata": asked.get("metadata"), "error": None}
            job |= {"finished_at": None, "trained_tokens": None, "result_files": []}
            job |= {"hyperparameters": asked["method"]["supervised"]["hyperparameters"]}
            job |= {"organization_id": "org-test", "suffix": asked.get("suffix")}
            self.jobs[name], self.events[name] = job, []
        threading.Thread(target=self._train, args=(job,), daemon=True).start()
        return job

    def _train(self, job: dict) -> None:
        began = time.monotonic()
        try:
            if self._fault("job") == "job_failed":
                raise ValueError(f"the training file has too few examples for {self.key}")
            folder = self._trained(job)
            log = training_log(folder)
            time.sleep(max(0.0, self.job_seconds - (time.monotonic() - began)))
            for step, loss in enumerate(log["losses"], 1):
                self._event(job, f"Step {step}: training loss={loss:.2f}", step, loss)
            name = f"ft:{job['model'].split(':')[1] if ':' in job['model'] else job['model']}"
            job["fine_tuned_model"] = f"{name}:org-test:{job['suffix']}:{job['id']}"
            self.models[job["fine_tuned_model"]] = str(folder)
            job |= {"trained_tokens": log["num_tokens"], "finished_at": int(time.time())}
            job["status"] = "succeeded"
        except Exception as error:
            traceback.print_exc()
            job |= {"error": {"code": "invalid", "message": str(error)}, "status": "failed"}

    def _trained(self, job: dict) -> Path:
        rows = [json.loads(line) for line in self.files[job["training_file"]].splitlines()]
        examples, loss_on = read_rows(rows)
        wanted = job["hyperparameters"]
        settings = {
            "learning_rate": BASE_LEARNING_RATE * wanted["learning_rate_multiplier"],
            "num_train_epochs": wanted["n_epochs"],
            "per_device_train_batch_size": wanted["batch_size"],
            "weight_decay": 1.0e-3,
            "lr_scheduler_type": "linear",
            "max_grad_norm": 1.0,
            "bf16": False,
            "fp16": False,
            "seed": job["seed"],
            "loss_on": loss_on,
        }
        start = str(hub.model_folder(self.models[job["model"]]))
        key = checkpoint_key(start, examples, settings, "cpu")
        task = (str(self.runs_dir), start, examples, settings, "cpu", key)
        ((_, folder),) = run_parallel(make_checkpoint, [task], NUM_WORKERS)
        return folder

    def _event(self, job: dict, message: str, step: int, loss: float) -> None:
        head = {"id": f"ftevent-{step}", "object": "fine_tuning.job.event", "level": "info"}
        data = {"step": step, "train_loss": loss}
        event = {**head, "created_at": int(time.time()), "message": message, "type": "metrics"}
        self.events[job["id"]].insert(0, {**event, "data": data})  # the newest first

    def _fault(self, path: str) -> str | None:
        with self.lock:
            return self.faults[path].pop(0) if self.faults.get(path) else None


def read_rows(rows: list[dict]) -> tuple[list[Example], str]:
    """Examples, and whether the loss is on all assistant turns or the last one, by their weights."""
    kinds = set()
    for row in rows:
        *earlier, last = [m.get("weight", 1) for m in row["messages"] if m["role"] == "assistant"]
        if last != 1 or len(set(earlier)) > 1:
            raise ValueError(
                "the last assistant turn has weight 1, those before it one weight or the other"
            )
        kinds |= set(earlier)
    if len(kinds) > 1:
        raise ValueError("this trainer learns from all assistant turns or from the last ones")
    examples = [
        Example("", tuple({name: m[name] for name in ("role", "content")} for m in row["messages"]))
        for row in rows
    ]
    return examples, "all_turns" if kinds == {1} else "final_turn"


class Handler(BaseHTTPRequestHandler):
    """Routes requests; `state` is the server's."""

    state: Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self._answer("POST", body)

    def do_GET(self) -> None:
        self._answer("GET", b"")

    def log_message(self, *args) -> None:
        """Nothing: the tests' output is theirs."""

    def _answer(self, method: str, body: bytes) -> None:
        path = urlsplit(self.path).path.removeprefix("/v1")
        self.state.seen.append((method, path))
        fault = self.state._fault(path) or self.state._fault(f"{method} {path}")
        if fault and not fault.startswith("after_") and self.fault(fault):
            return
        try:
            if self.headers["Authorization"] != f"Bearer {self.state.key}":
                # A careless server: it says which key it was given, and which one it wants.
                given = self.headers["Authorization"]
                raise Refused(401, f"Incorrect key {given} for {self.state.url}, not {self.state.key}")
            answer = self._route(method, path, body)
        except Refused as refused:
            error = {"message": refused.message, "type": "invalid_request_error", "code": None}
            body = {"error": {**error, "param": None}}
            self.send(refused.status, body if isinstance(refused.message, str) else refused.message)
            return
        if fault and self.fault(fault.removeprefix("after_")):
            return
        self.send(200, answer)

    def _route(self, method: str, path: str, body: bytes) -> dict:
        state, parts = self.state, path.strip("/").split("/")
        if (method, path) == ("POST", "/chat/completions"):
            asked = json.loads(body)
            state.chats.append(asked)
            return state.chat(asked)
        if (method, path) == ("POST", "/files"):
            return state.upload(self._uploaded(body))
        if (method, path) == ("POST", "/fine_tuning/jobs"):
            return state.create_job(json.loads(body))
        if method == "GET" and parts[:2] == ["fine_tuning", "jobs"]:
            return self._get_jobs(parts[2:])
        raise Refused(404, f"there is no {method} {path}")

    def _get_jobs(self, parts: list[str]) -> dict:
        query = parse_qs(urlsplit(self.path).query)
        if not parts:
            wanted = {n[9:-1]: v[0] for n, v in query.items() if n.startswith("metadata[")}
            found = [
                j for j in self.state.jobs.values() if wanted.items() <= (j["metadata"] or {}).items()
            ]
            return {"object": "list", "data": found[::-1], "has_more": False}
        if parts[0] not in self.state.jobs:
            raise Refused(404, f"there is no job {parts[0]}")
        if parts[1:] == ["events"]:  # in pages of three, so that clients must turn them
            events = self.state.events[parts[0]]
            ids = [event["id"] for event in events]
            start = ids.index(query["after"][0]) + 1 if "after" in query else 0
            more = start + 3 < len(events)
            return {"object": "list", "data": events[start : start + 3], "has_more": more}
        return self.state.jobs[parts[0]]

    def _uploaded(self, body: bytes) -> str:
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        form = {
            part.get_param("name", header="content-disposition"): part
            for part in email.message_from_bytes(head + body).get_payload()
        }
        if form["purpose"].get_payload() != "fine-tune":
            raise Refused(400, "the purpose must be fine-tune")
        return form["file"].get_payload(decode=True).decode()

    def fault(self, kind: str) -> bool:
        """Does what an unreliable server does; returns whether that was the answer."""
        if kind == "429":
            self.send(429, {"error": {"message": "slow down"}}, {"Retry-After": "1"})
        elif kind.isdigit():
            self.send(int(kind), {"error": {"message": f"the server is {kind} for {self.state.key}"}})
        elif kind == "hang":
            time.sleep(HANG)
        elif kind == "drop":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif kind == "no_json":
            self.send(200, "<html>gateway</html>")
        elif kind == "no_choices":
            self.send(200, {"choices": [], "usage": None})
        elif kind == "no_content":
            choice = {"message": {"role": "assistant", "content": None}, "finish_reason": "stop"}
            self.send(200, {"choices": [choice]})
        elif kind == "filtered":
            choice = {
                "message": {"role": "assistant", "content": None},
                "finish_reason": "content_filter",
            }
            self.send(200, {"choices": [choice]})
        else:
            return False
        return True

    def send(self, status: int, answer: object, headers: dict | None = None) -> None:
        streamed = isinstance(answer, bytes)
        text = answer if isinstance(answer, (str, bytes)) else json.dumps(answer)
        data = text if isinstance(text, bytes) else text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/event-stream" if streamed else "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
