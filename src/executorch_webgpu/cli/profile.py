"""``et-webgpu profile SOURCE``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import FILE, device_options, load_options
from .source import chosen_options, conversion_options, program_path
from .streams import note

if TYPE_CHECKING:
    from ..gpu.device import Device
    from ..report.profile import ProfileReport
    from ..report.timings import Distribution, Row
    from ..runtime import LoadOptions, Program, Runtime
    from .profile_runs import TextSizes, Workload

MOST_ROWS = 25  # of a table on the terminal


@click.command("profile")
@click.argument("source")
@click.option(
    "--trace", "trace_file", type=FILE, help="Write a timeline for ui.perfetto.dev or chrome://tracing (JSON)"
)
@click.option(
    "--html", "html_file", type=FILE, help="Write a report with plots as one HTML file that loads nothing else"
)
@click.option("--tokenizer", "tokenizer_file", type=FILE, help="A .gguf or tokenizer.json  [default: in the program]")
@click.option(
    "--prompt", metavar="TEXT", help="What a language model continues  [default: --prompt-tokens random ones]"
)
@click.option("--prompt-tokens", type=click.IntRange(1), default=32, show_default=True, help="Of a random prompt")
@click.option("--steps", type=click.IntRange(1), default=16, show_default=True, help="New tokens of a language model")
@click.option("--streams", type=click.IntRange(1), help="As many texts at once, in an engine")
@click.option("--method", help="Run a method, also of a language model, as a program  [default: forward]")
@click.option("--input", "inputs", multiple=True, metavar="NPY|NUMBER", help="One for each input of it, in order")
@click.option("--runs", type=click.IntRange(1), default=5, show_default=True, help="Calls of the method")
@click.option("--cold", is_flag=True, help="Trace the first run, in which drivers compile; by default runs precede it")
@conversion_options
@load_options("kv_cache_dtype", "matmul_precision", "routes", "fuse")
@device_options
def command(
    source: str,
    trace_file: Path | None,
    html_file: Path | None,
    tokenizer_file: Path | None,
    prompt: str | None,
    prompt_tokens: int,
    steps: int,
    streams: int | None,
    method: str | None,
    inputs: tuple[str, ...],
    runs: int,
    cold: bool,
    weights: str | None,
    max_context_len: int | None,
    loading: LoadOptions,
    engine: str | None,
    adapter: int | str | None,
) -> None:
    """Show where the time of a run goes: on the host, and in each dispatch on the GPU.

    SOURCE is a program (.pte), or a model as the generate command takes it. A language model reads a prompt and
    continues it, or several with --streams; of any other program a method is called, with --input or random values.
    """
    from ..runtime import Runtime
    from .profile_runs import TextSizes, is_language_model, method_workload
    from .run import read_input

    if streams is not None and (method is not None or inputs):
        raise click.UsageError(
            "--streams is for texts of a language model, so it goes with neither --method nor --input"
        )
    given = [read_input(text) for text in inputs]
    runtime = Runtime.get(engine=engine, adapter=adapter)
    with ExitStack() as stack:
        path = program_path(source, chosen_options(weights, max_context_len))
        program = stack.enter_context(runtime.load_program(path))
        workload: AbstractContextManager[Workload]
        if method is None and not given and (streams is not None or prompt is not None or is_language_model(program)):
            sizes = TextSizes(None, prompt_tokens, steps)
            workload = _of_text(program, tokenizer_file, prompt, sizes, loading, streams)
        else:
            workload = method_workload(program, method or "forward", loading, given, runs)
        report = _measured(runtime, stack.enter_context(workload), source, loading, cold)
    if trace_file is not None:
        report.trace.save(trace_file)
    if html_file is not None:
        from ..report.profile_page import write_profile_page

        write_profile_page(report, html_file)
    _print(report)
    for written in (trace_file, html_file):
        if written is not None:
            note(f"wrote {written}")


def _of_text(
    program: Program,
    tokenizer_file: Path | None,
    prompt: str | None,
    sizes: TextSizes,
    loading: LoadOptions,
    streams: int | None,
) -> AbstractContextManager[Workload]:
    from dataclasses import replace

    from ..errors import InvalidInputError
    from ..llm.measure.speed import endless, own_or_numbers
    from ..llm.signature import Signature
    from ..text.tokenizer import Tokenizer
    from .profile_runs import engine_workload, text_workload

    vocab_size = Signature.of(program).vocab_size
    own = Tokenizer.from_file(tokenizer_file) if tokenizer_file is not None else own_or_numbers(program, vocab_size)
    if prompt is not None:
        tokens = own.encode_prompt(prompt)
        if not tokens:
            raise InvalidInputError("--prompt is empty: give some text, or leave it out for random tokens")
        sizes = replace(sizes, prompt=tokens)
    if streams is not None:
        return engine_workload(program, endless(own), loading, sizes, streams)
    return text_workload(program, endless(own), loading, sizes)


def _measured(runtime: Runtime, workload: Workload, source: str, loading: LoadOptions, cold: bool) -> ProfileReport:
    from ..errors import NoAdapterError
    from ..gpu.ceilings import read_rate
    from ..report.profile import ProfileReport
    from ..runtime import trace

    device: Device | None
    try:
        device = runtime.device
    except NoAdapterError:  # the reference
        device = None
    untraced = None
    if not cold:
        for _ in range(workload.before):
            workload.once()
        untraced = _seconds(workload.once)
    timed = device if device is not None and device.features.timestamps else None
    # Before and after: what else the machine does makes it lower, never higher.
    rates = [read_rate(timed)] if timed is not None else []
    with trace(device) as recorded:
        traced = _seconds(workload.once)
    rates += [read_rate(timed)] if timed is not None else []
    adapter = "NumPy references" if device is None else f"{device.info.name} ({device.engine}, {device.info.backend})"
    chosen = f"KV cache {loading.kv_cache_dtype}, matmul precision {loading.matmul_precision}"
    return ProfileReport(recorded, source, workload.what, adapter, chosen, traced, untraced, max(rates, default=None))


def _seconds(run: Callable[[], None]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def _print(report: ProfileReport) -> None:
    from .tables import console, table

    out = console()
    out.print(f"{report.source} on {report.adapter}: {report.what}", style="bold")
    out.print(report.cost)
    for text in report.trace.notes:
        out.print(text)
    found = report.timings
    columns = ("Time", "Steps>", "Mean ms>", "50th>", "90th>", "99th>", "Worst>", "Sum ms>")
    made = table(columns, title="Steps")
    for name in found.step_names:
        for what, times in report.step_distributions(name):
            made.add_row(f"{name}: {what}", *_of_times(times, 1e6))
    if made.rows:
        out.print(made)
    made = table(("Host", "ms>"), title="Time of the host's threads")
    for name, nanoseconds in found.host.items():
        made.add_row(name, f"{nanoseconds / 1e6:.2f}")
    if made.rows:
        out.print(made)
    if found.by_operator:
        heads = (
            "Calls>",
            "Dispatches>",
            "GPU ms>",
            "Share>",
            "50th us>",
            "99th us>",
            "Worst us>",
            "GB/s>",
            "Roofline>",
        )
        made = table(("Operator", "Route", *heads), title="Time by operator")
        for row in found.by_operator[:MOST_ROWS]:
            made.add_row(row.names[0], row.names[1], str(row.calls), *_of_row(report, row))
        out.print(made)
        if len(found.by_operator) > MOST_ROWS:
            out.print(f"and {len(found.by_operator) - MOST_ROWS} more, in the report that --html writes")


def _of_times(times: Distribution, unit: float) -> Sequence[str]:
    numbers = (times.total / times.count, times.p50, times.p90, times.p99, times.worst, times.total)
    return [str(times.count), *(f"{number / unit:.3f}" for number in numbers)]


def _of_row(report: ProfileReport, row: Row) -> Sequence[Any]:
    times = row.distribution
    rate, share = report.rate(row), report.roofline(row)
    return (
        str(len(row.times)),
        f"{row.gpu / 1e6:.3f}",
        f"{row.gpu / max(1, report.timings.gpu):.1%}",
        *(f"{value / 1000:.1f}" for value in (times.p50, times.p99, times.worst)),
        "" if rate is None else f"{rate / 1e9:.3g}",
        "" if share is None else f"{share:.0%}",
    )
