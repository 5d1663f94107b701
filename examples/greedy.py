"""Greedy decoding by hand: one loaded program for the prompt and for every token after it.

python examples/greedy.py model.pte tokenizer.gguf "The capital of France is"
"""

from __future__ import annotations

import sys

import numpy as np

from executorch_webgpu import Runtime
from executorch_webgpu.text.tokenizer import Tokenizer


def main(program_path: str, tokenizer_path: str, prompt: str, count: int = 16) -> str:
    tokenizer = Tokenizer.from_file(tokenizer_path)
    tokens = tokenizer.encode_prompt(prompt)
    with (
        Runtime.get().load_program(program_path) as program,
        program.load_method("forward") as forward,
    ):
        position, step = 0, tokens
        for _ in range(count):
            # The sequence length is 4 or 40 in the first call and 1 in the others; input_pos says where it goes.
            (logits,) = forward.execute([np.array([step]), np.array([position])])
            position += len(step)
            step = [int(logits[0].argmax())]
            tokens.extend(step)
    return tokenizer.decode(tokens)


if __name__ == "__main__":
    print(main(sys.argv[1], sys.argv[2], sys.argv[3]))
