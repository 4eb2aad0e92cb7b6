"""What every package may use: errors, files, command lines, progress. No JAX, nothing of chains."""
