"""Makes the conformance pack: the op-test catalog of ExecuTorch's own WebGPU backend, from its wheel.

The pack holds programs (.pte), inputs and expected outputs (raw little-endian) and ``manifest.json``. Set
ET_WEBGPU_CONFORMANCE to it and run the tests. Needs the extra ``export``; takes about 20 minutes on 2 cores.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import click

GENERATOR = "executorch.backends.webgpu.test.op_tests.generate_op_tests"


def generate(folder: Path, ops: str | None) -> int:
    """Runs the generator in ``folder``; the number of cases that it made."""
    selection = ["--ops", ops] if ops else ["--all"]
    # Without this the generator leaves out the large cases.
    environment = os.environ | {"WEBGPU_TEST_HEAVY": "1"}
    command = [sys.executable, "-m", GENERATOR, *selection, "--output", str(folder)]
    subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=True)
    return len(json.loads((folder / "manifest.json").read_text()))


@click.command(help=__doc__)
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--ops", help="only these suites, separated by commas")
def main(output: Path, ops: str | None) -> None:
    if output.exists():
        raise click.ClickException(f"{output} exists; remove it or name another place")
    packed = output.name.endswith(".tar.xz")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".conformance-") as temporary:
        folder = Path(temporary) / "optests"
        folder.mkdir()
        try:
            cases = generate(folder, ops)
        except subprocess.CalledProcessError as error:
            raise click.ClickException(f"the generator failed with exit code {error.returncode}") from None
        made = folder
        if packed:
            made = Path(temporary) / output.name
            with tarfile.open(made, "w:xz") as archive:
                archive.add(folder, arcname=folder.name)
        made.rename(output)
    click.echo(f"{cases} cases in {output}")


if __name__ == "__main__":
    main()
