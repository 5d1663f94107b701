"""``et-webgpu serve SOURCE``."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import Error
from .options import FILE, device_options, load_options
from .source import chosen_options, conversion_options, program_path
from .streams import note

if TYPE_CHECKING:
    from ..runtime import LoadOptions
    from ..serve.limits import Limits
    from ..serve.settings import ServerSettings

POSITIVE = click.FloatRange(0, min_open=True)
# Packages of the extra, by what is imported.
EXTRA = ("httptools", "llguidance", "prometheus_client", "pydantic", "starlette", "uvicorn")


@click.command("serve")
@click.argument("source", required=False)
@click.option("--embeddings", metavar="SOURCE", help="An encoder, which answers /v1/embeddings.")
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="Where to listen; 0.0.0.0 for all of this machine's addresses. Others can reach it then: give keys.",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), metavar="N", default=8000, show_default=True, help="0 chooses a free one."
)
@click.option("--name", help="What clients call the model.  [default: SOURCE's name]")
@click.option("--tokenizer", "tokenizer_file", type=FILE, help="A .gguf or tokenizer.json.  [default: in the program]")
@click.option("--api-key-file", type=FILE, help="Keys that clients must send, one a line, beside ET_WEBGPU_API_KEY's.")
@click.option("--max-sequences", type=click.IntRange(1), metavar="N", help="Texts that run at once.  [default: 64]")
@click.option("--max-rows", type=click.IntRange(1), metavar="N", help="Tokens in one step.  [default: 256]")
@click.option(
    "--kv-pages",
    type=click.IntRange(1),
    metavar="N",
    help="KV cache, in pages of 16 tokens.  [default: four whole contexts]",
)
@click.option("--speculate", metavar="prompt-lookup|SOURCE", help="Guess tokens ahead, by the text or a smaller model.")
@click.option(
    "--max-prompt-tokens", type=click.IntRange(1), metavar="N", help="Refuse longer prompts.  [default: the context]"
)
@click.option(
    "--max-running", type=click.IntRange(1), metavar="N", default=256, show_default=True, help="Requests at a time."
)
@click.option(
    "--max-queue",
    type=click.IntRange(0),
    metavar="N",
    default=512,
    show_default=True,
    help="Requests that wait; more get a 429.",
)
@click.option(
    "--max-body-mib",
    type=click.IntRange(1),
    metavar="N",
    default=8,
    show_default=True,
    help="Size of a request, in MiB.",
)
@click.option(
    "--request-seconds",
    type=POSITIVE,
    metavar="N",
    default=600,
    show_default=True,
    help="Time that a request may take.",
)
@click.option(
    "--grace-seconds",
    type=click.FloatRange(0),
    metavar="N",
    default=30,
    show_default=True,
    help="Time that streams get when it stops.",
)
@click.option(
    "--allowed-host",
    multiple=True,
    metavar="NAME",
    help="A name that clients may call this server by; may be repeated.",
)
@click.option(
    "--cors-origin", multiple=True, metavar="ORIGIN", help="A site whose pages may use this server; may be repeated."
)
@click.option("--open-metrics", is_flag=True, help="Show /metrics without a key.")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Of the lines on stderr.",
)
@click.option(
    "--replicas",
    type=click.IntRange(1),
    metavar="N",
    help="Copies of the model, on a GPU each, by Ray.  [default: one, without Ray]",
)
@click.option("--page/--no-page", default=True, show_default=True, help="Serve the chat page at /.")
@conversion_options
@load_options("kv_cache_dtype", "matmul_precision", "fuse")
@device_options
def command(
    source: str | None,
    embeddings: str | None,
    host: str,
    port: int,
    name: str | None,
    tokenizer_file: Path | None,
    weights: Any,
    max_context_len: int | None,
    loading: LoadOptions,
    engine: str | None,
    adapter: int | str | None,
    speculate: str | None,
    max_prompt_tokens: int | None,
    page: bool,
    **options: Any,
) -> None:
    """Answer requests of OpenAI's API over HTTP, with a chat page at /.

    \b
        et-webgpu serve smollm2-135m
        et-webgpu serve model.gguf --embeddings all-minilm-l6-v2 --port 8080

    SOURCE is a program (.pte), a GGUF file, a folder with safetensors, smollm2-135m, or org/name of the Hugging Face
    Hub. What is no program is converted once, and kept in the cache folder. Ctrl-C lets streams end, and stops; a
    second one stops at once.
    """
    if source is None and embeddings is None:
        raise click.UsageError("give a language model as SOURCE, an encoder with --embeddings, or both")
    check_extra()
    from ..serve.settings import EngineSettings, ServerSettings

    chosen = chosen_options(weights, max_context_len)
    tokenizer = None
    if tokenizer_file is not None:
        from ..text.tokenizer import Tokenizer

        tokenizer = Tokenizer.from_file(tokenizer_file)
    sizes = {key: value for key in ("max_sequences", "max_rows", "kv_pages") if (value := options.pop(key)) is not None}
    if speculate not in (None, "prompt-lookup"):
        speculate = str(program_path(str(speculate)))
    settings = ServerSettings(
        EngineSettings(
            None if source is None else str(program_path(source, chosen, tokenizer)),
            None if embeddings is None else str(program_path(embeddings)),
            engine,
            adapter,
            loading,
            sizes,
            speculate,
            None if tokenizer_file is None else str(tokenizer_file.resolve()),
        ),
        name or model_name(source or "model"),
        model_name(embeddings or "embeddings"),
        max_prompt_tokens,
        page=page,
    )
    replicas = options.pop("replicas")
    if replicas is None:
        serve(settings, host, port, options)
    else:
        serve_replicated(settings, replicas, host, port, options)


def serve_replicated(settings: ServerSettings, replicas: int, host: str, port: int, options: dict[str, Any]) -> None:
    """Run a server of several replicas until it is told to stop. Raises Error if it cannot start."""
    try:
        from ..ray.local import prepare_environment, serve_replicas

        prepare_environment()
        from ..ray.replica import ReplicaSettings
    except ImportError as error:
        raise Error(f'--replicas needs Ray: pip install "executorch-webgpu[ray]" ({error})') from error
    network = _network(host, options)
    key_file = options["api_key_file"]
    keys = None if key_file is None else str(Path(key_file).resolve())
    grace_seconds, log_format = options["grace_seconds"], options["log_format"]
    made = ReplicaSettings(settings, _limits(options), keys, grace_seconds, network, log_format)
    serve_replicas(made, replicas, host, port, lambda url: note(f"Listening at {url}; Ctrl-C stops."))


def _limits(options: dict[str, Any]) -> Limits:
    from ..serve.limits import MIB, Limits

    return Limits(
        max_body_bytes=options["max_body_mib"] * MIB,
        max_running=options["max_running"],
        max_queue=options["max_queue"],
        request_seconds=options["request_seconds"],
    )


def _network(host: str, options: dict[str, Any]) -> dict[str, Any]:
    return {
        "host": host,
        "allowed_hosts": options["allowed_host"],
        "cors_origins": options["cors_origin"],
        "open_metrics": options["open_metrics"],
    }


def model_name(source: str) -> str:
    """What a model is called: the last part of where it comes from, without what tells its format."""
    return Path(source).name.removesuffix(".pte").removesuffix(".gguf")


def check_extra() -> None:
    """Raises Error, with a name for each package of the extra that is missing, before anything is converted."""
    if missing := [name.replace("_", "-") for name in EXTRA if find_spec(name) is None]:
        raise Error(f'the server needs {", ".join(missing)}: pip install "executorch-webgpu[serve]"')


def serve(settings: ServerSettings, host: str, port: int, options: dict[str, Any]) -> None:
    """Run a server until it is told to stop. Raises Error if it cannot start."""
    from ..serve.app import build_app
    from ..serve.auth import ApiKeys
    from ..serve.engine_client import EngineClient
    from ..serve.listen import make_server
    from ..serve.metrics import Metrics
    from ..serve.shutdown import Draining

    limits = _limits(options)
    keys, metrics, draining = ApiKeys.load(options["api_key_file"]), Metrics(), Draining(options["grace_seconds"])
    network = _network(host, options)

    async def run() -> None:
        client = EngineClient(settings.engine)
        starting = asyncio.create_task(client.start())
        try:
            await asyncio.sleep(0)  # its process begins to load, while this one reads the tokenizer
            await listen(client, starting)
        finally:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await client.close()

    async def listen(client: EngineClient, starting: asyncio.Task[None]) -> None:
        parts = {"limits": limits, "keys": keys, "draining": draining, "metrics": metrics, "network": network}
        app = build_app(settings, client, **parts)
        await starting
        where: dict[str, Any] = {"host": host, "port": port}
        server = make_server(app, limits, metrics, draining, options["log_format"], **where)
        announced = asyncio.create_task(_announce(server))
        try:
            await server.serve()
        finally:
            announced.cancel()

    try:
        import uvloop
    except ImportError:  # not on Windows
        asyncio.run(run())
    else:
        uvloop.run(run())


async def _announce(server: Any) -> None:
    """Say where the server listens, once it does."""
    while not server.started:
        await asyncio.sleep(0.01)
    for each in server.servers:
        for listening in each.sockets:
            host, port = listening.getsockname()[:2]
            note(f"Listening at http://{f'[{host}]' if ':' in host else host}:{port}; Ctrl-C stops.")
