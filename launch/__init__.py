"""Expands sweeps and runs their points."""

from coi_jax.common import interrupts

interrupts.install_in_commands()  # first, so that Ctrl-C is one line from the beginning
