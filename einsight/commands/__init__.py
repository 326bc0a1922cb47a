"""The subcommands: parse, call, print. Each module holds one, named `command`."""
