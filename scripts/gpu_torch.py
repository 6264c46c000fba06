#!/usr/bin/env python3
"""Times the models of gpu_models.py in PyTorch, fp16, with and without a CUDA graph: what they are compared with.

    gpu_torch.py --out torch.json --only unet --batches 1,2,4,8 --seconds 2
    gpu_torch.py --out torch.json --tiny --device cpu        on the processor, to try the script; marked dry_run

The same modules and sizes as in the ONNX files, convolutions with cudnn's own search and channels last, which is what a
PyTorch user has for one line each. Each call is timed by CUDA events on its own, after a warm-up in which clocks and
algorithms settle. Needs torch and diffusers; status 2 when one is missing.
"""

import argparse
import json
import pathlib
import sys
import time

import gpu_models


def spread(times):
    times = sorted(times)
    at = lambda share: times[min(len(times) - 1, int(len(times) * share))]
    return {"calls": len(times), "min": times[0], "p50": at(0.5), "p95": at(0.95)}


def timed(call, seconds, device):
    """Milliseconds of each call."""
    import torch

    if device == "cpu":
        end, times = time.perf_counter() + seconds, []
        while len(times) < 3 or time.perf_counter() < end:
            begin = time.perf_counter()
            call()
            times.append((time.perf_counter() - begin) * 1e3)
        return times
    end, times = time.perf_counter() + seconds, []
    while len(times) < 20 or time.perf_counter() < end:
        # Queued together, so that what the device waits for the host shows, as it does in use, and the events' own
        # cost is small beside a call.
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(9)]
        marks[0].record()
        for mark in marks[1:]:
            call()
            mark.record()
        torch.cuda.synchronize()
        times += [a.elapsed_time(b) for a, b in zip(marks, marks[1:])]
    return times


def measure(model, batch, options):
    import torch

    device = options.device
    inputs = model.example(batch, device=device)
    inputs = tuple(x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x for x in inputs)
    rows = []
    with torch.inference_mode():
        call = lambda: model.module(*inputs)
        for _ in range(1 if device == "cpu" else 5):
            result = call()
        if not bool(torch.isfinite(result).all()):
            sys.exit(f"{model.name}, batch {batch}: not every number is finite")
        if device != "cpu":
            timed(call, min(1.0, options.seconds / 2), device)
        rows.append({"batch": batch, "graph": False, "ms": spread(timed(call, options.seconds, device))})
        if device == "cpu":
            return rows
        # As the documentation has it: warmed up on a stream of its own, then captured.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                call()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                call()
        except RuntimeError as error:
            rows.append({"batch": batch, "graph": True, "failed": str(error).splitlines()[0]})
            return rows
        timed(graph.replay, min(1.0, options.seconds / 2), device)
        rows.append({"batch": batch, "graph": True, "ms": spread(timed(graph.replay, options.seconds, device))})
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True, help="where the figures go, as JSON")
    parser.add_argument("--only", default=",".join(gpu_models.MAKERS), help="some of the models, by comma")
    parser.add_argument("--batches", default="1,2,4,8", help="batch sizes, by comma")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each row")
    parser.add_argument("--tiny", action="store_true", help="small models, for tests")
    parser.add_argument("--device", default="cuda", help="cuda or cpu")
    options = parser.parse_args()
    options.nogn = False
    torch, diffusers = gpu_models.need("torch", "diffusers")
    gpu_models.quiet()
    if options.device != "cpu" and not torch.cuda.is_available():
        sys.exit("gpu_torch.py: torch finds no CUDA device here (--device cpu --tiny tries the script without one)")
    torch.backends.cudnn.benchmark = True
    models = {}
    for name in options.only.split(","):
        model = gpu_models.make(name, options, options.device)
        model.module.to(memory_format=torch.channels_last)
        rows = []
        for batch in map(int, options.batches.split(",")):
            rows += measure(model, batch, options)
            print(f"{name}, batch {batch}: {rows[-1]}", file=sys.stderr, flush=True)
        models[name] = {"sizes": model.sizes, "rows": rows}
        del model
        if options.device != "cpu":
            torch.cuda.empty_cache()
    about = {
        "dry_run": options.device == "cpu" or options.tiny,
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "cuda": torch.version.cuda,
        "device": "cpu" if options.device == "cpu" else torch.cuda.get_device_name(),
        "models": models,
    }
    options.out.write_text(json.dumps(about, indent=2) + "\n")


if __name__ == "__main__":
    main()
