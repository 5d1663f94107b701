"""Many prompts at once over one program: half of them from threads, half from asyncio tasks, all in one engine.

python examples/many_prompts.py model.pte "The capital of France is" "Once upon a time" …
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from executorch_webgpu import Runtime
from executorch_webgpu.llm import Engine, SamplingParams
from executorch_webgpu.text.tokenizer import Tokenizer

Prompt = list[int]  # tokens


def main(program_path: str, prompts: Sequence[str], max_new_tokens: int = 16) -> list[str]:
    """The text of each prompt, as it would be alone."""
    params = SamplingParams(max_new_tokens)
    with Runtime.get().load_program(program_path) as program, Engine(program) as engine:
        tokenizer = Tokenizer.from_files(program.named_data)
        encoded = [tokenizer.encode_prompt(prompt) for prompt in prompts]
        half = len(encoded) // 2
        with ThreadPoolExecutor() as pool:
            in_threads = [pool.submit(continued, engine, tokens, params) for tokens in encoded[:half]]
            in_tasks = asyncio.run(continued_in_tasks(engine, encoded[half:], params))
        texts = [*(each.result() for each in in_threads), *in_tasks]
        return [tokenizer.decode(tokens + text) for tokens, text in zip(encoded, texts, strict=True)]


def continued(engine: Engine, tokens: Prompt, params: SamplingParams) -> list[int]:
    """A thread waits for the tokens of its stream; the engine goes on with all others meanwhile."""
    return list(engine.submit(tokens, params))


async def continued_in_tasks(engine: Engine, prompts: Sequence[Prompt], params: SamplingParams) -> list[list[int]]:
    async def continued(tokens: Prompt) -> list[int]:
        return [token async for token in engine.submit(tokens, params)]

    return await asyncio.gather(*map(continued, prompts))


if __name__ == "__main__":
    for text in main(sys.argv[1], sys.argv[2:]):
        print(text)
