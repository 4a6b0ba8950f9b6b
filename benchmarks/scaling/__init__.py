"""docs/scaling.md, its figures and the packaged advice, all from kept results of `fusemix bench`.

    python -m benchmarks.scaling

It reads `benchmarks/results/scaling/results.jsonl` and `benchmarks/results/hard/results.jsonl`
(`fusemix bench --config benchmarks/scaling.toml`, or `hard.toml`), and what `sets.toml` beside this
says of each set. What is not in the results is "not measured" on the page.
"""
