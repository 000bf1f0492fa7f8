"""JavaScript sessions against Deno's Jupyter kernel; `cargo xtask bench -- --stage javascript` runs it.

First sessions of a server by themselves. Then what an engine needs for arithmetic, text and collections: each cell on
each kernel in turn, from the request to reply and idle, with equal answers. Then everything that kernel_bench.py
measures; its clocks, sockets and checks are used for both. `cob` starts what it runs; `cob-warm` is given started
workers by a server of its own, which ends with this program and whose memory counts as its.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import javascript_sessions

# Each prints its answer; a function of its own, as in any program: top-level variables are dearer everywhere.
COMPUTE = {
    "fib(30)": "const fib = n => n < 2 ? n : fib(n - 1) + fib(n - 2); console.log(`${fib(30)}`)",
    "empty loop, 1e7": "(() => { let s = 0; for (let i = 0; i < 1e7; i++) s = (s + i) | 0; console.log(`${s}`) })()",
    "n-body, 100,000 steps": """(() => {
  const D = 365.24, S = 4 * Math.PI ** 2;
  const b = [[0, 0, 0, 0, 0, 0, 1],
    [4.84143144246472090, -1.16032004402742839, -0.103622044471123109, 0.00166007664274403694, 0.00769901118419740425, -0.0000690460016972063023, 0.000954791938424326609],
    [8.34336671824457987, 4.12479856412430479, -0.403523417114321381, -0.00276742510726411, 0.00499852801234917, 0.0000230417297573763929, 0.000285885980666130812],
    [12.8943695621391310, -15.1111514016986312, -0.223307578892655734, 0.00296460137564761618, 0.00237847173959480950, -0.0000296589568540237556, 0.0000436624404335156298],
    [15.3796971148509165, -25.9193146099879641, 0.179258772950371181, 0.00268067772490389322, 0.00162824170038242295, -0.0000951592254519715870, 0.0000515138902046611451]]
    .map(([x, y, z, u, v, w, m], i) => ({x, y, z, u: u * D, v: v * D, w: w * D, m: m * S}));
  for (let step = 0; step < 100000; step++) {
    for (let i = 0; i < 5; i++) {
      const p = b[i];
      for (let j = i + 1; j < 5; j++) {
        const q = b[j], dx = p.x - q.x, dy = p.y - q.y, dz = p.z - q.z;
        const d2 = dx * dx + dy * dy + dz * dz, g = 0.001 / (d2 * Math.sqrt(d2));
        p.u -= dx * q.m * g; p.v -= dy * q.m * g; p.w -= dz * q.m * g;
        q.u += dx * p.m * g; q.v += dy * p.m * g; q.w += dz * p.m * g;
      }
    }
    for (const p of b) { p.x += 0.001 * p.u; p.y += 0.001 * p.v; p.z += 0.001 * p.w; }
  }
  console.log(`${b[1].x.toFixed(6)}`);
})()""",
    "Mandelbrot, 300 by 300": """(() => {
  let inside = 0;
  for (let py = 0; py < 300; py++) for (let px = 0; px < 300; px++) {
    const cx = px / 150 - 1.5, cy = py / 150 - 1;
    let x = 0, y = 0, n = 0;
    while (n < 50 && x * x + y * y < 4) { const t = x * x - y * y + cx; y = 2 * x * y + cy; x = t; n++; }
    if (n === 50) inside++;
  }
  console.log(`${inside}`);
})()""",
    "JSON.stringify, 60,000 objects": """(() => {
  const rows = []; for (let i = 0; i < 60000; i++) rows.push({id: i, name: 'row ' + i, tags: ['a', 'b', i % 7], value: i / 3});
  let n = 0; for (let i = 0; i < 3; i++) n += JSON.stringify(rows).length; console.log(`${n}`);
})()""",
    "JSON.parse, 60,000 objects": """(() => {
  const row = '{"id":12,"name":"row 12","tags":["a","b",3],"value":4.25}';
  const text = '[' + new Array(60000).fill(row).join() + ']';
  let n = 0; for (let i = 0; i < 3; i++) n += JSON.parse(text).length; console.log(`${n}`);
})()""",
    "sort 200,000 by a comparator": """(() => {
  let s = 1; const a = []; for (let i = 0; i < 200000; i++) a.push(s = s * 1103515245 % 2147483647);
  a.sort((x, y) => x - y); console.log(`${a[1000]}`);
})()""",
    "sort 1e6 typed": """(() => {
  let s = 1; const a = new Float64Array(1e6); for (let i = 0; i < 1e6; i++) a[i] = s = s * 48271 % 2147483647;
  a.sort(); console.log(`${a[1000]}`);
})()""",
    "regular expression over 600 KB": """(() => {
  const text = 'user42@example.org, Lorem ipsum dolor sit amet; '.repeat(12500);
  let n = 0; for (const m of text.matchAll(/([a-z]+)(\\d+)@([a-z]+)\\.org/g)) n += m[2].length; console.log(`${n}`);
})()""",
    "string += 1e6": "(() => { let s = ''; for (let i = 0; i < 1e6; i++) s += i % 10; console.log(`${s.length}`) })()",
    "Map, 300,000 set and get": """(() => {
  const m = new Map(); for (let i = 0; i < 300000; i++) m.set('k' + i, i);
  let n = 0; for (let i = 0; i < 300000; i++) n += m.get('k' + i); console.log(`${n}`);
})()""",
    "1e6 objects": """(() => {
  let last = null, n = 0; for (let i = 0; i < 1e6; i++) { last = {i, last: i % 100 ? last : null}; n += last.i & 1; }
  console.log(`${n}`);
})()""",
}


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--kernel-bench", required=True, type=Path, help="the folder of kernel_bench.py")
    p.add_argument("--cob", required=True)
    p.add_argument("--deno", required=True)
    p.add_argument("--compute-rounds", type=int, default=5, help="0 leaves these rows out")
    p.add_argument("--without-kernels", action="store_true", help="only what the engine needs")
    p.add_argument("--compute-json", type=Path)
    p.add_argument("--session-rounds", type=int, default=3, help="0 leaves the sessions of a server out")
    p.add_argument("--opens", type=int, default=30, help="sessions opened one after the other")
    p.add_argument("--idle", type=int, default=20, help="sessions that are open at once for their memory")
    p.add_argument("--heaps", type=int, nargs="*", default=[1, 200], help="megabytes in sessions with checkpoints")
    p.add_argument("--takes", type=int, default=20)
    return p.parse_known_args()


def kernelspecs(folder, args, server):
    """Writes a kernelspec for each kernel; their folders by name, Deno's first: it is the base of the ratios."""
    cob = [args.cob, "kernel", "--language", "javascript", "-f", "{connection_file}"]
    specs = {
        "deno": ([args.deno, "jupyter", "--kernel", "--conn", "{connection_file}"],
                 {"DENO_DIR": str(folder / "deno-dir"), "DENO_NO_UPDATE_CHECK": "1"}, "signal"),
        "cob": ([*cob, "--cold"], {}, "message"),
        "cob-warm": (cob, {"COB_RUNTIME_DIR": server.folder}, "message"),
    }
    dirs = {}
    for name, (argv, env, interrupt) in specs.items():
        dirs[name] = folder / name
        dirs[name].mkdir()
        spec = {"argv": argv, "env": env, "display_name": name, "language": "typescript", "interrupt_mode": interrupt}
        (dirs[name] / "kernel.json").write_text(json.dumps(spec))
    return dirs


class Server:
    """A `cob serve` without Python, in a folder of its own."""

    def __init__(self, cob):
        self.cob, self.folder = cob, tempfile.mkdtemp(prefix="cob-bench-")
        self.env = os.environ | {"COB_RUNTIME_DIR": self.folder}
        argv = [cob, "serve", "--session-spares", "0"]
        self.process = subprocess.Popen(argv, env=self.env, stdout=subprocess.DEVNULL)

    def wait(self):
        """Until what the first kernel asked for is there in advance for the next one."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            done = subprocess.run([self.cob, "info", "--json"], env=self.env, capture_output=True, text=True)
            if done.returncode == 0 and any(one["warm"] > 0 for one in json.loads(done.stdout)["environments"]):
                return
            time.sleep(0.05)
        raise SystemExit("the server never became warm")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


def compute(bench, opts, rounds):
    """{row: {kernel: [ms per round]}}; a failure is a result too: its reason stands where the times would."""
    rows = {title: {name: [] for name in opts.names} for title in COMPUTE}
    for number in range(rounds):
        print(f"compute, round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        turn = opts.names[number % len(opts.names):] + opts.names[:number % len(opts.names)]
        kernels = []
        try:
            for name in turn:
                kernels.append(bench.Kernel(name, opts))
                kernels[-1].start()
            for title, code in COMPUTE.items():
                answers = {}
                for kernel in kernels:
                    run = kernel.execute(code)
                    kernel.check_ok(run)
                    kernel.pump(run, lambda: kernel.stdout(run).endswith("\n"), 5)  # Deno's may come after idle
                    answers[kernel.name] = kernel.stdout(run)
                    rows[title][kernel.name].append(run.elapsed_ms())
                if len(set(answers.values())) != 1:
                    raise SystemExit(f"{title}: the answers differ: {answers}")
        finally:
            for kernel in kernels:
                kernel.stop()
    return rows


def show(rows, names):
    print(f"\n{'ms from the request to reply and idle, median; ratio to ' + names[0]:<56}"
          + "".join(f"{name:>20}" for name in names))
    for title, by_name in rows.items():
        base = by_name[names[0]]
        cells = []
        for name in names:
            ratio = statistics.median(value / its for value, its in zip(by_name[name], base))
            cells.append(f"{statistics.median(by_name[name]):.1f} ({ratio:.2f})")
        print(f"{title:<56}" + "".join(f"{cell:>20}" for cell in cells))


def main():
    args, rest = arguments()
    sys.path.insert(0, str(args.kernel_bench))
    import kernel_bench as bench

    if args.session_rounds:
        for row, value in javascript_sessions.measure(args).items():
            print(f"{row:<66}{value:.4g}")
    server = Server(args.cob)
    try:
        with tempfile.TemporaryDirectory() as folder:
            dirs = kernelspecs(Path(folder), args, server)
            words = [word for name, place in dirs.items() for word in ("--kernel", f"{name}={place}")]
            pids = ["--extra-pids", f"cob-warm={server.process.pid}"]
            opts = bench.options([*words, *pids, "--language", "javascript", *rest])
            first = bench.Kernel("cob-warm", opts)
            first.start()
            first.stop()
            server.wait()
            if args.compute_rounds:
                rows = compute(bench, opts, args.compute_rounds)
                show(rows, opts.names)
                if args.compute_json:
                    args.compute_json.write_text(json.dumps(rows))
            if not args.without_kernels:
                measured = bench.Bench(opts)
                with suppress(KeyboardInterrupt):
                    measured.run()
                bench.print_table(measured)
                if opts.json:
                    bench.dump(measured, opts.json)
    finally:
        server.stop()


if __name__ == "__main__":
    main()
