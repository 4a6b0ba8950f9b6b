"""`python -m fusemix_core.cli`, which `torchrun -m` can start."""

from fusemix_core.cli import main

main()
