"""Chain-of-Instructions tuning in JAX."""
