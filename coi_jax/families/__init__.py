"""The published model families, one file each, and the table of all of them (`coi_jax.families.registry`)."""
