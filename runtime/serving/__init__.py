"""What runs a bundle inside of model servers."""
