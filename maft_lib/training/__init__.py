"""Algorithm 1's datasets, and the finetuning of agents on them: where, on what, and how."""


class FinetuneError(RuntimeError):
    """Finetuning an agent failed; the message says which and why."""
