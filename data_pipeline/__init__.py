"""Everything before the token cache: sources, composition, audits, SeqIO tasks. TensorFlow lives here only."""

from coi_jax.common import interrupts

interrupts.install_in_commands()  # first, so that Ctrl-C is one line from the beginning
