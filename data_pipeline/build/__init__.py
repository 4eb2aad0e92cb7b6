"""Builds chains from single instructions, with a language model or by computing."""

from data_pipeline.build.engine.quiet_beam import silence_beam

silence_beam()
