"""The table of commands, and the commands of the light runtime."""
