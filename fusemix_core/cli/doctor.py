"""`fusemix doctor`: what this machine has, what is slow on it, and what to do."""

from __future__ import annotations

import typer

from fusemix_core.cli import options as o
from fusemix_core.cli.console import out, print_json, print_table


def doctor(json: o.Json = False) -> None:
    """Examine this machine and the installation: what works, what is slow and why, what to do.

    It looks at the device and its precision, threads, memory, the store of latents, decoders,
    plugins and optional runtimes. Nothing is changed or downloaded. Exit 1 if something is broken.

    Examples:

        fusemix doctor

        fusemix doctor --json > machine.json
    """
    from fusemix_core.jobs.doctor import examine

    found = examine()
    if json:
        print_json([finding.as_dict() for finding in found])
    else:
        print_table(["topic", "state", "found"], [[f.topic, f.state, f.text] for f in found])
        advice = [f"{f.topic}: {f.advice}" for f in found if f.advice]
        out.print("\nWhat you can do" if advice else "\nNothing to do.")
        for line in advice:
            out.print(f"- {line}", soft_wrap=True)
    if any(finding.state == "error" for finding in found):
        raise typer.Exit(1)
