"""How the miniature language model is made: `model/` is an ordinary Hugging Face model directory."""

from pathlib import Path

MODEL = Path("maft_lib") / "miniature" / "model"  # from the project's root
