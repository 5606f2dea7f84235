"""The miniature language model: how it is made. Nothing outside this folder knows that it is small.

What it makes is an ordinary Hugging Face model directory, `model/`, which every other part of the
project loads as it would load any model.
"""

from pathlib import Path

MODEL = Path("maft_lib") / "miniature" / "model"  # from the project's root
