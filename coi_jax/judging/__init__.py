"""What language models and people say of answers: which of two runs is better, and where an answer has its steps.

`answer_pairs` reads the answers of two runs to the same chains, `verdicts` asks a model about each pair in both orders,
`preference` sums up, `ballots` writes a table for people and reads what they chose.
`spans` asks a model which part of an answer is the output of each step, `span_scores` scores those parts.
"""
