"""A small optimized module in libtpu's words: a loop of five turns, which holds another of an unknown number."""

from pathlib import Path

TEXT = Path(__file__).with_name("module.hlo").read_text(encoding="utf-8")
