"""Text generation over a program's ``forward(tokens, input_pos)`` method."""
