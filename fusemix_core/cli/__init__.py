"""The command line: parse, call the library, print."""


def main() -> None:
    """Entry point of the `fusemix` command."""
    from fusemix_core.cli.app import app
    from fusemix_core.cli.terminate import sigterm_interrupts
    from fusemix_core.registry import registry

    registry.commands(app)
    with sigterm_interrupts():
        app()
