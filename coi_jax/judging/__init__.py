"""Preference between the answers of two runs: by a language model as judge, or by people who do not know the runs.

`answer_pairs` reads the answers of two runs to the same chains, `verdicts` asks a model about each pair in both orders,
`preference` sums up, `ballots` writes a table for people and reads what they chose.
"""
