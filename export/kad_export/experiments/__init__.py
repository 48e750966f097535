"""Grids of experiments: both methods, many settings, one row of figures for each run.

::

    grid.py        what a grid is; reading one, the thesis' own (thesis.yaml) among them
    options.py     options as texts, checked by the commands that take them
    plan.py        from a grid and a data folder to runs
    process.py     a command in a process of its own: its time, its memory; child.py is that process
    store.py       the folder of results: what is done, what is not
    experiment.py  runs one after another
    published.py   the thesis' own figures
    tables.py      the results as JSON, CSV and Markdown
"""
