"""The command line: parse, call the library, print."""

from __future__ import annotations

import sys
from collections.abc import Callable


def main() -> None:
    """Entry point of the `fusemix` command."""
    try:
        from fusemix_core.cli.console import escape_what_streams_lack

        escape_what_streams_lack()
        from fusemix_core.cli.terminate import sigterm_interrupts

        app = _search() if sys.argv[1:2] == ["search"] else _whole()
        with sigterm_interrupts():
            app()
    except KeyboardInterrupt:  # outside of a command: while modules are loaded, or at the end
        sys.exit(130)


def _search() -> Callable[[], None]:
    """The application with `search` only: a second is noticed there, and the commands of core and
    of plugins take a tenth of it."""
    from fusemix_core.cli.base import new_app
    from fusemix_core.cli.search import search

    app = new_app()
    app.command("search")(search)
    return app


def _whole() -> Callable[[], None]:
    from fusemix_core.cli.app import app
    from fusemix_core.cli.plugins_app import add_plugin_commands
    from fusemix_core.registry import registry

    add_plugin_commands(app, registry)
    return app
