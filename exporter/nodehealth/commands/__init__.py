"""What a person types: one module for each command that prints.  None of them moves a position."""
