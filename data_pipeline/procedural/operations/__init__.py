"""The operations, one module for each type of value that they take."""
