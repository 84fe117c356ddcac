"""A program of its own: builds Triton kernels for a GPU that this machine need not have.

    python build.py < {"capability": 90, "kernels": [launches]} > [{"shared": bytes, ...}]

It imports nothing of this project, because it runs where none of it is to be seen, and it runs what it is sent.
"""

from __future__ import annotations

import json
import linecache
import os
import re
import subprocess
import sys
import tempfile
from typing import Any

os.environ["TRITON_INTERPRET"] = "0"
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")


def build(launch: dict[str, Any], capability: int) -> dict[str, Any]:
    """What one kernel needs. Bytes of shared memory for a program; registers and bytes of spills for a thread."""
    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    source, name = launch["source"], f"<{launch['kernel']}>"
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    names: dict[str, Any] = {"triton": triton, "tl": tl, "__name__": "kernels"}
    exec(compile(source, name, "exec"), names)
    kernel = names[launch["kernel"]]
    constants = {key: _constant(value, tl) for key, value in launch["constants"].items()}
    order = list(launch["signature"])
    attributes = {(order.index(each),): [["tt.divisibility", 16]] for each in launch["aligned"]}
    made = triton.compile(
        ASTSource(kernel, launch["signature"], constants, attributes),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": launch["num_warps"], "num_stages": launch["num_stages"]},
    )
    registers, local = _usage(made.asm["cubin"], os.path.dirname(triton.__file__))
    return {"shared": int(made.metadata.shared), "registers": registers, "spilled": local}


def _constant(value: Any, tl: Any) -> Any:
    """A compile-time argument; {"dtype": name} is one of Triton's dtypes."""
    if not isinstance(value, dict):
        return value
    kind = str(value["dtype"])
    return getattr(
        tl, {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32", "fp64": "float64"}.get(kind, kind)
    )


def _usage(binary: bytes, home: str) -> tuple[int, int]:
    """Registers and bytes of local memory for a thread, as NVIDIA's own tool reads them from the binary."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        tool = os.path.join(home, "backends", "nvidia", "bin", "cuobjdump")
        command = [tool, "--dump-resource-usage", file.name]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", text)
    if found is None:
        raise RuntimeError(f"cuobjdump says nothing of registers: {text[:200]}")
    return int(found[1]), int(found[2]) + int(found[3])


def main() -> None:
    """Answer on the real standard output; what kernels print while they are built goes nowhere."""
    answers, asked = [], json.load(sys.stdin)
    reply = os.fdopen(os.dup(1), "w")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    for launch in asked["kernels"]:
        try:
            answers.append(build(launch, asked["capability"]))
        except BaseException as error:  # noqa: BLE001  whatever is wrong with a kernel is its answer
            cause = error.__cause__ or error
            answers.append({"error": f"{type(cause).__name__}: {cause}"[:1500]})
    json.dump(answers, reply)
    reply.flush()


if __name__ == "__main__":
    main()
