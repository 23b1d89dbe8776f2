"""Reproduce the paper's tables and figures: plan the experiments, run them, write the reports.

tables.py    what each table and figure of the paper compares
plan.py      selected tables and figures -> experiments, each with the digest of its settings
search.py    hyper-parameter search by validation
run.py       experiments -> rows, on Ray; worker.py runs inside a worker
results.py   the results file
report.py    rows -> tables and figures in Markdown and LaTeX; sheet.py formats, compare.py tests
figures.py   the pictures of Fig. 5, 6, 7
published.py the paper's own numbers
bars.py      FuxiCTR's benchmark, its published numbers and the experiments beside them
"""
