"""The command line: parse, call the library, print."""


def main() -> None:
    """Entry point of the `fusemix` command."""
    from fusemix_core.cli.app import app
    from fusemix_core.cli.plugins_app import add_plugin_commands
    from fusemix_core.cli.terminate import sigterm_interrupts
    from fusemix_core.registry import registry

    add_plugin_commands(app, registry)
    with sigterm_interrupts():
        app()
