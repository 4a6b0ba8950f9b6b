"""The version of fusemix and of the plugins in its repository. `make version V=…` sets it."""

__version__ = "0.2.0"
