"""How the stages run: Beam pipelines whose results are kept."""
