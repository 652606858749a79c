"""The commands of the light runtime, one file each."""
