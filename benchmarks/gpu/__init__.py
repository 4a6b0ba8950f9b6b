"""What a GPU is measured by, in six minutes: `make gpu`, or `python -m benchmarks gpu`.

`plan` lists the sections. Each is a module here with `jobs(case)`, and runs in a process of its own
under its own limit (`runner`); every figure is on disk as soon as it is known.
"""
