"""The command line: parse, call the library, print."""

import sys


def main() -> None:
    """Entry point of the `fusemix` command."""
    try:
        from fusemix_core.cli.console import escape_what_streams_lack

        escape_what_streams_lack()
        from fusemix_core.cli.app import app
        from fusemix_core.cli.plugins_app import add_plugin_commands
        from fusemix_core.cli.terminate import sigterm_interrupts
        from fusemix_core.registry import registry

        add_plugin_commands(app, registry)
        with sigterm_interrupts():
            app()
    except KeyboardInterrupt:  # outside of a command: while modules are loaded, or at the end
        sys.exit(130)
