#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""make bench: measures, prints a table, and writes the same to build/bench.json.

    tests/bench/run.py [--build build] [--quick] [--part peak|start|decode|prefill|linear|kv|train|count|http|edge]...

Every row has its ratio to the plain double forward pass of the tests, to what bounds it (the time it takes at
least to read its weights and cache once at the measured bandwidth, or to do its multiplications
at the measured peak, whichever is longer: 100 % cannot be passed but by caches), and to BLIS.
Times are processor time, the best of several runs. HTTP rows are requests a second by wrk through
nginx, beside a program that answers without doing anything.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
MODELS = {"names": (27, 16, 4, 1, 16), "128": (100, 128, 4, 4, 256), "256": (100, 256, 8, 8, 512),
          "384": (4096, 384, 8, 8, 1024)}
SHORT_NAME = {"names": "16/4/1/16 v27", "128": "128/4/4/256 v100", "256": "256/8/8/512 v100",
              "384": "384/8/8/1024 v4096"}


class Bench:
    def __init__(self, build, quick):
        self.bin = Path(build).resolve() / "tests/bench"
        self.build, self.quick = Path(build).resolve(), quick
        self.tmp = Path(tempfile.mkdtemp(prefix="mg-bench-"))
        self.dirs, self.rows, self.plain, self.read = {}, [], {}, {}
        self.cpu = max(os.sched_getaffinity(0))
        self.peak = max((self.run("peak") for _ in range(3)), key=lambda row: row["flops"])

    def model(self, name, dtype, *more):
        key = (name, dtype, *more)
        if key not in self.dirs:
            args = [str(n) for n in MODELS[name]] + [dtype, *more]
            done = subprocess.run([self.bin / "make-model", *args], check=True, text=True,
                                  capture_output=True, env={**os.environ, "TMPDIR": str(self.tmp)})
            self.dirs[key] = done.stdout.strip()
        return self.dirs[key]

    def run(self, *args, prefix=()):
        """One row from the C program, on one core."""
        command = ["taskset", "-c", str(self.cpu), *prefix, str(self.bin / "bench"), *map(str, args)]
        done = subprocess.run(command, text=True, capture_output=True)
        if done.returncode:
            sys.exit(f"{' '.join(command)}: {done.stderr}")
        return json.loads(done.stdout)

    def plain_rate(self, name):
        """Tokens a second of the tests' plain double forward pass, short context."""
        if name not in self.plain:
            self.plain[name] = self.run("plain", self.model(name, "f32"))["per_s"]
        return self.plain[name]

    def bandwidth(self, name, dtype):
        if (name, dtype) not in self.read:
            self.read[name, dtype] = self.run("open", self.model(name, dtype))
        return self.read[name, dtype]["read"]

    def add(self, name, dtype, kind, *args, at=1, blis=True):
        """Measure with the native kernels and with BLIS; args[at] is the engine's place."""
        def measure(engine):
            a = list(args)
            a.insert(at, engine)
            return self.run(kind, self.model(name, dtype), *a)
        row = measure(self.peak["engines"][0])
        least = max(row["flops"] / self.peak["flops"], row["bytes"] / self.bandwidth(name, dtype))
        row["bound"] = "compute" if least == row["flops"] / self.peak["flops"] else "memory"
        row["of_bound"] = row["per_s"] * least
        row["gflops"] = row["per_s"] * row["flops"] / 1e9
        row["of_peak"] = row["per_s"] * row["flops"] / self.peak["flops"]
        if kind != "linear":
            row["to_plain"] = row["per_s"] / self.plain_rate(name)
        if blis:
            row["to_blis"] = row["per_s"] / measure("blis")["per_s"]
        self.rows.append(row)
        what = (f"B{row['batch']} {row.get('context', '')}" if "batch" in row
                else f"{row['tokens']} in chunks of {row['chunk']}")
        print(f"{kind:8}{row['model']:20}{row['dtype']:4} kv {row['kv']} {what:22}"
              f"{row['per_s']:12,.0f} tok/s {row['gflops']:6.1f} GFLOP/s"
              f"{100 * row['of_peak']:5.0f} % of peak {100 * row['of_bound']:4.0f} % of {row['bound']} bound"
              + (f"  x{row['to_plain']:.1f} plain" if "to_plain" in row else "")
              + (f"  x{row['to_blis']:.2f} BLIS" if "to_blis" in row else ""), flush=True)


def part_peak(b):
    print(f"FMA peak of core {b.cpu}: {b.peak['flops'] / 1e9:.0f} GFLOP/s; engines "
          f"{', '.join(b.peak['engines'])}")
    for name in MODELS:
        for dtype in ("f32", "f16"):
            print(f"reading {SHORT_NAME[name]} {dtype}: {b.bandwidth(name, dtype) / 1e9:.0f} GB/s")
    b.rows.append(b.peak)


def part_start(b):
    for name in ("names", "256", "384"):
        for dtype in ("f32", "f16"):
            b.bandwidth(name, dtype)
            row = b.read[name, dtype]
            print(f"open    {SHORT_NAME[name]:20}{row['dtype']:4} {row['bytes'] / 1e6:6.1f} MB, every weight "
                  f"checked: {1e3 * row['seconds']:.2f} ms ({row['bytes'] / row['seconds'] / 1e9:.0f} GB/s)")
            b.rows.append({**row, "model": SHORT_NAME[name]})
    stack = import_stack(b)
    for name in ("names", "256", "384"):
        model = b.model(name, "f32")
        seconds, private = zip(*(first_answer(stack, model) for _ in range(3 if b.quick else 9)))
        print(f"start   {SHORT_NAME[name]:20}F32  four workers, from exec to the first sample: "
              f"{1e3 * min(seconds):.0f} ms; own memory of a further worker {min(private) / 2**20:.1f} MB")
        b.rows.append({"row": "start", "model": SHORT_NAME[name], "seconds": min(seconds), "private": min(private)})


def import_stack(b):
    """The real service and nginx as the tests run them."""
    os.environ.setdefault("MG_BUILD", str(b.build))
    sys.path.insert(0, str(ROOT / "tests/http"))
    import stack
    return stack


def first_answer(stack, model):
    """Seconds until a new service with four workers has answered a request to sample; bytes of
    memory that only its largest worker has."""
    service = stack.Service(model, program=stack.FAST, workers=4)
    service.write_config()
    with open(service.log_path, "ab") as log:
        start = time.monotonic()
        service.process = subprocess.Popen([stack.FAST, "-c", service.dir / "conf"], stdout=log, stderr=log)
    while True:
        try:
            status = stack.fcgi.ask(service.address, b'{"max_tokens": 1}')[0]
            break
        except OSError:
            time.sleep(0.0005)
    seconds = time.monotonic() - start
    if status != 200:
        sys.exit(f"the service answered {status}:\n{service.log()}")
    service.wait_ready()
    private = max(own_memory(pid) for pid in service.workers())
    service.stop()
    shutil.rmtree(service.dir, ignore_errors=True)
    return seconds, private


def own_memory(pid):
    """Bytes that no other process has, but for the weights: theirs count as the worker's own
    where it is the only one to have read them so far."""
    own, counts = 0, True
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            counts = not line.endswith("weights.safetensors")
        elif counts and line.startswith("Private_"):
            own += 1024 * int(line.split()[1])
    return own


def part_decode(b):
    for name in MODELS if not b.quick else ("names", "128", "256"):
        for dtype in ("f32", "f16"):
            if name == "names" and dtype == "f16":
                continue
            for batch in (1, 16) if b.quick else (1, 4, 16, 50):
                for context in ("short", "half"):
                    for kv in ("f32",) if b.quick else ("f32", "f16"):
                        b.add(name, dtype, "decode", kv, batch, context, blis=not b.quick)


def part_prefill(b):
    for name, tokens in (("128", 192), ("256", 384), ("384", 768)):
        if b.quick and name == "384":
            continue
        for dtype in ("f32", "f16"):
            for chunk in (96,) if b.quick else (96, tokens):
                b.add(name, dtype, "prefill", "f32", tokens, chunk)


def part_linear(b):
    for name in ("128", "256", "384") if not b.quick else ("256",):
        for dtype in ("f32", "f16"):
            for rows in (96, 192) if not b.quick else (96,):
                b.add(name, dtype, "linear", rows, at=0)


def part_kv(b):
    """What kv = f16 changes: the logits of the bundled models, and how many of the recorded
    replies it still gives (all of them with f32)."""
    for model in ("chat", "names"):
        row = {**b.run("kv", ROOT / "deploy/demo" / model), "model": f"deploy/demo/{model}"}
        print(f"kv f16  deploy/demo/{model}: logits move by at most {row['most']:.2g}, {row['mean']:.2g} on average")
        b.rows.append(row)
    stack = import_stack(b)
    same, lines = 0, 0
    homes = [ROOT / "../shared/golden", ROOT / "tests/golden"]
    for folder in next(h for h in homes if h.exists()).iterdir():
        if not (folder / "responses.jsonl").exists():
            continue
        with stack.Service(folder, program=stack.FAST, compat="0.5", kv="f16") as service:
            for asked, wanted in zip(*((folder / f).read_bytes().splitlines() for f in ("requests.jsonl",
                                                                                        "responses.jsonl"))):
                path = "/microgpt/v1/" + json.loads(asked)["endpoint"]
                got = stack.fcgi.ask(service.address, asked, path=path)
                same += json.loads(got[2]) == json.loads(wanted)
                lines += 1
    print(f"kv f16  recorded replies: {same} of {lines} are given", flush=True)
    b.rows.append({"row": "kv", "recorded": lines, "same": same})


def part_train(b):
    for shape, block, vocab, document in (((16, 4, 1), 16, 27, 7), ((64, 4, 2), 256, 60, 256),
                                          ((128, 4, 4), 256, 60, 256), ((256, 8, 8), 512, 60, 512)):
        if b.quick and shape[0] == 256:
            continue
        command = ["taskset", "-c", str(b.cpu), str(b.bin / "train"), *map(str, (*shape, block, vocab, document))]
        row = json.loads(subprocess.run(command, check=True, text=True, capture_output=True).stdout)
        print(f"train   {row['shape']:20} one core, 8 documents of {document:3}: {row['tokens_per_s']:9,} tokens/s, "
              f"{row['gflops']:.0f} GFLOP/s, {100 * row['share']:.0f} % of the FMA peak", flush=True)
        b.rows.append({"row": "train", **row})


def part_count(b):
    """Instructions of a token by callgrind: the figure that does not move with the weather. It knows
    AVX2 but not AVX-512, so it is that build which is counted, as the difference of two runs."""
    if not shutil.which("valgrind") or "avx2" not in b.peak["engines"]:
        print("callgrind rows not possible here: no valgrind, or no AVX2")
        return
    def instructions(name, steps):
        out = b.tmp / "callgrind"
        done = subprocess.run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}",
                               str(b.bin / "bench"), "count", b.model(name, "f32"), "f32", "avx2", "16", str(steps)],
                              text=True, capture_output=True, check=True)
        return int(re.search(r"Collected : (\d+)", done.stderr).group(1))
    for name in ("names", "128"):
        per_token = (instructions(name, 12) - instructions(name, 2)) / 160
        b.rows.append({"row": "count", "model": SHORT_NAME[name], "engine": "avx2", "instructions": per_token})
        print(f"count   {SHORT_NAME[name]:20}F32  avx2, batch 16: {per_token:,.0f} instructions per token")


# ---- HTTP -----------------------------------------------------------------------------------------

GENERATE, CHAT = "/microgpt/v1/generate", "/microgpt/v1/chat"


def wrk(b, ports, path, body=None, connections=64, headers=()):
    """Requests a second at each port, in turns so that both see the same weather; all must be
    answered 200, or 304."""
    script = b.tmp / "wrk.lua"
    script.write_text("".join(f"wrk.headers['{k}'] = '{v}'\n" for k, v in headers) + ("" if body is None else
                      'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n'
                      f"wrk.body = '{json.dumps(body)}'\n"))
    best = [0.0 for _ in ports]
    for _ in range(2 if b.quick else 5):
        for i, port in enumerate(ports):
            done = subprocess.run(["wrk", "-t1", f"-c{connections}", "-d", "1s" if b.quick else "3s", "-s",
                                   str(script), f"http://127.0.0.1:{port}{path}"], text=True, capture_output=True)
            found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
            if not found or "Non-2xx" in done.stdout:
                sys.exit(f"wrk {path}:\n{done.stdout}{done.stderr}")
            best[i] = max(best[i], float(found.group(1)))
    return best


class Nothing:
    """The program that answers without doing anything, behind an nginx configured as ours."""

    def __init__(self, b, stack, size):
        self.dir = stack.temporary()
        self.process = subprocess.Popen([b.bin / "nothing", self.dir / "s", "2", str(size)])
        while not (self.dir / "s").exists() and self.process.poll() is None:
            time.sleep(0.01)
        self.nginx = stack.Nginx(f"unix:{self.dir}/s")

    def __enter__(self):
        self.nginx.__enter__()
        return self.nginx.port

    def __exit__(self, *error):
        self.nginx.__exit__(*error)
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.dir)


def reply_size(port, path, body):
    import http.client
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    c.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body),
              {"Content-Type": "application/json"})
    return len(c.getresponse().read())


def part_http(b):
    if not shutil.which("wrk"):
        print("HTTP rows not possible here: no wrk")
        return
    stack = import_stack(b)
    names, chat = ROOT / "deploy/demo/names", ROOT / "deploy/demo/chat"
    hello = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 16}
    jobs = [("names x1", names, GENERATE, {}), ("names x50", names, GENERATE, {"num_samples": 50}),
            ("chat, 16 tokens", chat, CHAT, hello), ("/health", names, "/health", None)]
    for label, model, path, body in jobs:
        with stack.Stack(model, program=stack.FAST, workers=2, log_level="warn") as s:
            size = reply_size(s.port, path, body)
            with Nothing(b, stack, size) as port:
                rate, nothing = wrk(b, [s.port, port], path, body)
        b.rows.append({"row": "http", "what": label, "per_s": rate, "nothing": nothing, "of_nothing": rate / nothing})
        print(f"http    {label:20} 64 connections, two workers: {rate:9,.0f} requests/s, "
              f"{100 * rate / nothing:.0f} % of doing nothing ({nothing:,.0f})", flush=True)


def part_edge(b):
    """What costs no token: a reply that nginx keeps beside a file of its size, and a 304 of the
    worker beside the program that does nothing."""
    if not shutil.which("wrk"):
        print("edge rows not possible here: no wrk")
        return
    stack = import_stack(b)

    def row(what, rate, other, beside):
        b.rows.append({"row": "edge", "what": what, "per_s": rate, "beside": other, "ratio": rate / other})
        print(f"edge    {what:28} 64 connections: {rate:9,.0f} requests/s, {100 * rate / other:.0f} % of {beside} "
              f"({other:,.0f})", flush=True)
    with stack.Stack(ROOT / "deploy/demo/names", program=stack.FAST, workers=2, log_level="warn") as s:
        kept = f"/microgpt/v1/m/{s.status()['model']['fingerprint']}/generate?seed=5&num_samples=5"
        asked = f"{GENERATE}?seed=5&num_samples=5"
        size, tag = reply_size(s.port, kept, None), reply_header(s.port, asked, "ETag")
        with Nothing(b, stack, 0) as port:
            rate, nothing = wrk(b, [s.port, port], asked, headers=[("If-None-Match", tag)])
        row("304 of the worker", rate, nothing, "doing nothing")
        file_port = keep_replies(stack, s, kept, size)
        rate, file = wrk(b, [s.nginx.port, file_port], kept)
        row("kept by nginx, for good", rate, file, "a file of that size")
        row("kept by nginx, asked each time", *wrk(b, [s.nginx.port, file_port], asked), "a file of that size")


def reply_header(port, path, name):
    import http.client
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    c.request("GET", path)
    return c.getresponse().headers[name]


def keep_replies(stack, s, path, size):
    """nginx again, with the shipped cache, and a file of that size under the path and that of the
    query on a second port; which one."""
    s.nginx.stop()
    port, own = stack.free_port(), s.nginx.prefix / "microgpt.d"
    own.mkdir(exist_ok=True)
    for name in ("cache.http.conf", "cache.api.conf"):
        text = (ROOT / "deploy/examples/cache" / name).read_text()
        (own / name).write_text(text.replace("/var/cache/nginx-microgpt", f"{s.nginx.prefix}/tmp/kept"))
    for uri in (path, GENERATE):
        file = s.nginx.prefix / "files" / uri.partition("?")[0].lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * size)
    (own / "files.http.conf").write_text(f"server {{ listen 127.0.0.1:{port} backlog=1024; "
                                         f"root {s.nginx.prefix}/files; }}\n")
    s.nginx.start()
    return port


PARTS = {"peak": part_peak, "start": part_start, "decode": part_decode, "prefill": part_prefill,
         "linear": part_linear, "kv": part_kv, "train": part_train, "count": part_count, "http": part_http,
         "edge": part_edge}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--build", default="build")
    p.add_argument("--quick", action="store_true")
    p.add_argument("--part", action="append", choices=PARTS)
    options = p.parse_args()
    b = Bench(options.build, options.quick)
    try:
        for name in options.part or PARTS:
            PARTS[name](b)
    finally:
        shutil.rmtree(b.tmp)
    out = b.build / "bench.json"
    out.write_text(json.dumps({"rows": b.rows}, indent=1) + "\n")
    print(f"written to {out}")


if __name__ == "__main__":
    main()
