"""The paper's tables and figures: which experiments they need, their runs, their reports.

tables.py    what each table and figure of the paper compares
plan.py      a selection of them -> experiments, each with the digest of its settings
search.py    hyper-parameters, chosen by validation
run.py       experiments -> rows, on Ray; worker.py is the part inside a worker
results.py   the results file
report.py    rows -> Markdown and LaTeX; sheet.py and compare.py draw and judge them
figures.py   rows -> Fig. 5, 6, 7
paper.py     the paper's own numbers
"""
