#!/usr/bin/env python3
"""Runs heap profilers over the workloads and records cost and correctness.

  bench.py [--workloads a,b] [--tools x,y] [--rounds N] [--out results.jsonl]

Workloads come from workloads.toml, tools from tools.toml (a command template
each). One JSON line per run is appended to the results file; report.py turns it
into tables. Runs are interleaved: each round runs `native` first and once more
in the middle, then every tool once. A tool whose first run took longer than
--slow seconds is not repeated.

Wall time is a monotonic clock around fork..reap (taken by the small `runner` program). CPU time and `rss_max` (largest
single process) are the kernel's accounting of the whole waited-for tree;
`rss_sum` is the peak of the sum over the tree's processes, sampled at 10 Hz.
`foreign` is the CPU share (in cores) that processes outside the tree took during
the run: a run with more than --noise cores of it is repeated (up to 3 times).
"""
import argparse, glob, json, os, re, shlex, shutil, signal, statistics, subprocess, sys, tempfile, threading, time, tomllib

HERE = os.path.dirname(os.path.abspath(__file__))
PAGE = os.sysconf("SC_PAGE_SIZE")
HZ = os.sysconf("SC_CLK_TCK")


def busy_ticks():
    with open("/proc/stat") as f:
        v = [int(x) for x in f.readline().split()[1:]]
    return v[0] + v[1] + v[2] + v[5] + v[6]


def wait_quiet(limit=0.15, patience=900):
    """Waits until other processes use less than `limit` cores."""
    t0, told = time.time(), False
    while time.time() - t0 < patience:
        a = busy_ticks(); time.sleep(0.3); b = busy_ticks()
        if (b - a) / HZ / 0.3 < limit:
            return
        if not told:
            print("  (waiting for a quiet machine)", file=sys.stderr, flush=True); told = True
        time.sleep(1)


class RssSum(threading.Thread):
    def __init__(self, sid):
        super().__init__(daemon=True)
        self.sid, self.peak, self.stop = sid, 0, threading.Event()

    def run(self):
        while not self.stop.wait(0.1):
            total = 0
            for name in os.listdir("/proc"):
                if not name.isdigit():
                    continue
                try:
                    with open(f"/proc/{name}/stat") as f:
                        fields = f.read().rpartition(")")[2].split()
                except OSError:
                    continue
                if int(fields[3]) == self.sid:
                    total += int(fields[21]) * PAGE
            self.peak = max(self.peak, total)


def execute(runner, argv, env, cwd, stderr_path, timeout, stdout=subprocess.DEVNULL):
    """One run under the small `runner` program; LD_PRELOAD is set for the run only."""
    env = dict(env)
    preload = env.pop("LD_PRELOAD", None)
    if preload:
        argv = ["env", "LD_PRELOAD=" + preload] + argv
    report = stderr_path + ".rusage"
    busy0 = busy_ticks()
    with open(stderr_path, "wb") as err:
        p = subprocess.Popen([runner, report] + argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=stdout, stderr=err, start_new_session=True)
        watch = RssSum(p.pid); watch.start()
        timed_out = []

        def stop():
            timed_out.append(1)
            os.killpg(p.pid, signal.SIGKILL)
        killer = threading.Timer(timeout, stop)
        killer.start()
        t0 = time.monotonic()
        _, _, own = os.wait4(p.pid, 0)
        wall = time.monotonic() - t0
    killer.cancel(); watch.stop.set(); watch.join()
    p.returncode = 0
    try:
        r = json.loads(read(report))
    except ValueError:
        r = dict(wall=wall, user=own.ru_utime, sys=own.ru_stime, rss_max=own.ru_maxrss * 1024, rc=-9)
    cpu = r["user"] + r["sys"]
    foreign = max(0.0, ((busy_ticks() - busy0) / HZ - cpu) / max(wall, 0.2))
    return dict(r, rss_sum=max(watch.peak, r["rss_max"]), timeout=bool(timed_out), foreign=foreign)


def read(path):
    try:
        with open(path, errors="replace") as f:
            return f.read()
    except OSError:
        return ""


def num(s):
    return int(s.replace(",", ""))


# ---- what each tool says it saw --------------------------------------------------
def counts_heaptrack(out, err, ana):
    r = {}
    for key, pat in (("allocs", r"^\s*allocations:\s+(\d+)"), ("leaked", r"leaked allocations:\s+(\d+)"), ("temporary", r"temporary allocations:\s+(\d+)")):
        m = re.findall(pat, err, re.M)
        if m:
            r[key] = sum(map(int, m))
    m = re.search(r"peak heap memory consumption: (\S+)", ana)
    if m:
        r["peak"] = m.group(1)
    return r


def counts_dhat(out, err, ana):
    t = "".join(read(p) for p in glob.glob(out + "/log.*"))
    r = {}
    for key, pat in (("allocs", r"Total:\s+[\d,]+ bytes in ([\d,]+) blocks"), ("leaked", r"At t-end:\s+[\d,]+ bytes in ([\d,]+) blocks")):
        m = re.findall(pat, t)
        if m:
            r[key] = sum(num(x) for x in m)
    m = re.findall(r"At t-gmax:\s+([\d,]+) bytes", t)
    if m:
        r["peak"] = max(num(x) for x in m)
    return r


def counts_massif(out, err, ana):
    peak = 0
    for p in glob.glob(out + "/massif.*"):
        peak = max([peak] + [int(x) for x in re.findall(r"mem_heap_B=(\d+)", read(p))])
    return {"peak": peak}


def counts_memcheck(out, err, ana):
    t = "".join(read(p) for p in glob.glob(out + "/log.*"))
    r = {}
    m = re.findall(r"total heap usage: ([\d,]+) allocs, ([\d,]+) frees", t)
    if m:
        r["allocs"], r["frees"] = sum(num(a) for a, _ in m), sum(num(b) for _, b in m)
    for key, word in (("definite", "definitely lost"), ("indirect", "indirectly lost"), ("possible", "possibly lost"), ("reachable", "still reachable")):
        m = re.findall(word + r": [\d,]+ bytes in ([\d,]+) blocks", t)
        if m:
            r[key] = sum(num(x) for x in m)
    return r


def counts_lsan(out, err, ana):
    t = err + "".join(read(p) for p in glob.glob(out + "/lsan*"))
    m = re.findall(r"SUMMARY: LeakSanitizer: [\d,]+ byte\(s\) leaked in (\d+) allocation", t)
    r = {"unreachable": sum(map(int, m))}
    if "LeakSanitizer has encountered a fatal error" in t:
        r["fatal"] = True
    return r


def counts_jemalloc(out, err, ana):
    r = {"files": 0}
    for p in glob.glob(out + "/je*.heap"):
        t = read(p)
        m = re.search(r"t\*: (\d+): (\d+) \[(\d+): (\d+)\]", t)
        if m:
            r["files"] += 1
            r["allocs"] = r.get("allocs", 0) + int(m.group(3))
            r["leaked"] = r.get("leaked", 0) + int(m.group(1))
            r["stacks"] = r.get("stacks", 0) + sum(1 for x in t.splitlines() if x.startswith("@ "))
    return r


def counts_kv(out, err, ana):
    """For a tool whose analysis step prints key=number lines."""
    return {k: int(v) for k, v in re.findall(r"^(\w+)=(\d+)\s*$", ana, re.M)}


def counts_memscope(out, err, ana):
    """Sums over the process images of the snapshot that the analysis step wrote."""
    try:
        snapshot = json.loads(read(out + "/snapshot.json"))
        procs = snapshot["processes"]
    except (ValueError, KeyError) as e:
        return {"bad_json": str(e)}
    total = lambda key: sum(p["stats"][key] for p in procs)
    r = {"allocs": total("total_allocations"), "frees": total("total_deallocations"), "leaked": total("active_allocations"),
         "peak": max(p["stats"]["peak_memory"] for p in procs), "stacks": sum(len(p["stacks"]) for p in procs), "processes": len(procs),
         "threads": max(p["stats"]["threads"] for p in procs)}
    r["nodes"], r["depth"] = max(map(stack_nodes, procs))
    if not snapshot["complete"]:
        r["incomplete"] = snapshot["incomplete_reason"]
    return r


def stack_nodes(process):
    """(distinct nodes of the tree of stacks, depth of the deepest); inlined calls are no frames of the machine's."""
    real = [not f["inlined"] for f in process["frames"]]
    address = [f["address"] for f in process["frames"]]
    nodes, deepest = set(), 0
    for stack in process["stacks"]:
        parent = 0
        frames = [address[i] for i in reversed(stack["frames"]) if real[i]]
        deepest = max(deepest, len(frames))
        for a in frames:
            parent = hash((parent, a))
            nodes.add(parent)
    return len(nodes), deepest


def counts_none(out, err, ana):
    return {}


def tree_bytes(root):
    total = files = 0
    for d, _, names in os.walk(root):
        for n in names:
            total += os.lstat(os.path.join(d, n)).st_size; files += 1
    return total, files


def fill(template, values):
    """Expands {name} in a command template; {cmd} is spliced as separate words."""
    argv = []
    for word in shlex.split(template):
        if word == "{cmd}":
            argv += values["cmd"]
        elif word == "{script}":
            argv += values["script"]
        elif word.startswith("{glob:"):
            hits = sorted(glob.glob(word[6:-1].replace("<out>", values["out"])))
            argv += hits or ["/nonexistent"]
        else:
            for k, v in values.items():
                if isinstance(v, str):
                    word = word.replace("{" + k + "}", v)
            argv.append(word)
    return argv


def reader(args, outdir, out):
    """memscope's reader alone over a recording's largest trace, on one core: no symbols, no JSON."""
    traces = glob.glob(os.path.join(outdir, "rec", "*.trace"))
    if not traces:
        return {"error": "no trace"}
    core = str(min(os.sched_getaffinity(0)))
    argv = ["taskset", "-c", core, "gen_trace", "measure", max(traces, key=os.path.getsize), "--allocations", "none"]
    # memscope-cli puts large tables on huge pages; this program's C library does so when it is asked.
    env = dict(os.environ, GLIBC_TUNABLES="glibc.malloc.hugetlb=1")
    said = os.path.join(out, "reader")
    try:
        with open(said, "wb") as f:
            x = execute(args.runner, argv, env, outdir, said + ".err", args.timeout, stdout=f)
    except OSError as e:
        return {"error": str(e)}
    row = {k: x[k] for k in ("wall", "user", "sys", "rss_max", "rc", "timeout")}
    events = re.search(r"^events +(\d+)", read(said), re.M)
    return dict(row, events=int(events[1])) if events else dict(row, error=read(said + ".err").strip()[-200:])


def one(tool, work, cfg, args, analyze):
    out = tempfile.mkdtemp(prefix="run.", dir=args.scratch)
    outdir = os.path.join(out, "out"); os.mkdir(outdir)
    v = dict(out=outdir, bench=HERE, build=args.build, python=args.python)
    v["cc1plus"] = args.cc1plus
    v["exe"] = shutil.which(fill(work["exe"], v)[0]) if "exe" in work else fill(work["cmd"], v)[0]
    v["cmd"] = fill(work["cmd"], dict(v, cmd=[], script=[]))
    v["script"] = fill(work["script"], dict(v, cmd=[], script=[])) if "script" in work else []
    env = dict(os.environ)
    for src in (work.get("env", {}), tool.get("env", {})):
        for k, x in src.items():
            for name, val in v.items():
                if isinstance(val, str):
                    x = x.replace("{" + name + "}", val)
            env[k] = x
    argv = fill(tool.get("cmd", "{cmd}"), v)
    for attempt in range(3):
        shutil.rmtree(outdir); os.mkdir(outdir)
        wait_quiet()
        r = execute(args.runner, argv, env, args.build, os.path.join(out, "stderr"), args.timeout)
        if r["foreign"] <= args.noise or r["wall"] > args.slow:
            break
    r["bytes"], r["files"] = tree_bytes(outdir)
    ana_text = ""
    if analyze and tool.get("analyze") and not r["timeout"]:
        a = fill(tool["analyze"], v)
        with open(os.path.join(out, "analysis"), "wb") as f:
            wait_quiet()
            try:
                x = execute(args.runner, a, dict(os.environ), outdir, os.path.join(out, "analysis.err"), args.timeout, stdout=f)
                r["analysis"] = {k: x[k] for k in ("wall", "user", "sys", "rss_max", "rc", "timeout")}
                r["analysis"]["out_bytes"] = os.path.getsize(f.name)
            except OSError as e:
                r["analysis"] = {"error": str(e)}
        if tool.get("one_core"):
            wait_quiet()
            core = str(min(os.sched_getaffinity(0)))
            try:
                x = execute(args.runner, ["taskset", "-c", core] + a, dict(os.environ), outdir, os.path.join(out, "one_core.err"), args.timeout)
                r["analysis_one_core"] = {k: x[k] for k in ("wall", "user", "sys", "rss_max", "rc", "timeout")}
            except OSError as e:
                r["analysis_one_core"] = {"error": str(e)}
            wait_quiet()
            r["reader_one_core"] = reader(args, outdir, out)
        ana_text = read(os.path.join(out, "analysis"))[:4_000_000] + read(os.path.join(out, "analysis"))[-4_000_000:] if os.path.getsize(os.path.join(out, "analysis")) > 8_000_000 else read(os.path.join(out, "analysis"))
    err = read(os.path.join(out, "stderr"))
    if analyze:
        r["counts"] = globals()["counts_" + tool.get("counts", "none")](outdir, err, ana_text)
    if r["rc"] != 0:
        r["stderr_tail"] = err[-400:]
    if not args.keep:
        shutil.rmtree(out)
    return r


def counted(work, args, prefix=()):
    """What libcount.so counts in each process of a run."""
    path = os.path.join(args.scratch, f"count.{os.getpid()}")
    if os.path.exists(path):
        os.unlink(path)
    v = dict(out=args.scratch, bench=HERE, build=args.build, python=args.python, cc1plus=args.cc1plus, cmd=[], script=[])
    env = dict(os.environ, **work.get("env", {}), LD_PRELOAD=os.path.join(args.build, "libcount.so"), COUNT_OUT=path)
    subprocess.run([*prefix, *fill(work["cmd"], v)], env=env, cwd=args.build, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rows = [json.loads(x) for x in read(path).splitlines()]
    os.unlink(path)
    return rows


def joint(work, args):
    """memscope and libcount.so in the same processes: what a program allocates depends on its environment, and for some on
    where its memory lies, so only there the counts must be equal to the last block and byte."""
    out = tempfile.mkdtemp(prefix="joint.", dir=args.scratch)
    rows = counted(work, args, ["memscope-cli", "run", "--quiet", "--export", "none", "-o", out + "/rec", "--"])
    subprocess.run(["memscope-cli", "analyze", "--allocations", "none", out + "/rec", out + "/s.json"], stderr=subprocess.DEVNULL)
    try:
        snapshot = json.loads(read(out + "/s.json"))
    except ValueError:
        return {"equal": False, "why": "no snapshot"}
    ours = sorted((p["pid"], *(p["stats"][k] for k in ("total_allocations", "total_deallocations", "total_allocated"))) for p in snapshot["processes"])
    pids = {p[0] for p in ours}
    theirs = sorted((r["pid"], r["allocs"], r["frees"], r["bytes"]) for r in rows if r["pid"] in pids)
    shutil.rmtree(out)
    return {"equal": snapshot["complete"] and ours == theirs, "memscope": ours, "libcount": theirs}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--tools", default="", help="comma-separated; default: every tool not marked optional")
    ap.add_argument("--workloads", default="")
    ap.add_argument("--tools-file", default=os.path.join(HERE, "tools.toml"))
    ap.add_argument("--workloads-file", default=os.path.join(HERE, "workloads.toml"))
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--slow", type=float, default=20, help="a tool whose run takes longer than this is run once")
    ap.add_argument("--timeout", type=float, default=180)
    ap.add_argument("--noise", type=float, default=0.2, help="foreign CPU (cores) above which a run is repeated")
    ap.add_argument("--build", default=os.environ.get("WORKLOADS", os.path.join(HERE, "workloads/build")))
    ap.add_argument("--python", default=os.environ.get("BENCH_PYTHON", sys.executable))
    ap.add_argument("--scratch", default="")
    ap.add_argument("--out", default=os.path.join(HERE, "results.jsonl"))
    ap.add_argument("--keep", action="store_true", help="keep every run's output folder")
    args = ap.parse_args()
    args.cc1plus = subprocess.run(["g++", "-print-prog-name=cc1plus"], capture_output=True, text=True).stdout.strip()
    args.runner = os.path.join(args.build, "runner")
    args.scratch = args.scratch or tempfile.mkdtemp(prefix="heapbench.")
    os.makedirs(args.scratch, exist_ok=True)
    tools = tomllib.load(open(args.tools_file, "rb"))
    works = tomllib.load(open(args.workloads_file, "rb"))
    names = args.tools.split(",") if args.tools else [t for t in tools if not tools[t].get("optional")]
    wnames = args.workloads.split(",") if args.workloads else [w for w in works if not works[w].get("optional")]
    sink = open(args.out, "a")

    def put(row):
        sink.write(json.dumps(row) + "\n"); sink.flush()

    for w in wnames:
        work = works[w]
        rows = counted(work, args)
        same = joint(work, args) if "memscope" in names else None
        put(dict(workload=w, tool="truth", processes=rows, joint=same))
        print(f"== {w}: {sum(x['allocs'] for x in rows)} allocs, {sum(x['frees'] for x in rows)} frees in {len(rows)} process(es), the same in one process: {same and same['equal']}", flush=True)
        todo = [t for t in names if t != "native" and (not tools[t].get("only") or w in tools[t]["only"]) and w not in tools[t].get("skip", [])]
        first = {}
        for rnd in range(args.rounds):
            this = [t for t in todo if rnd == 0 or (first[t]["wall"] <= args.slow and not first[t]["timeout"])]
            order = ["native"] + this[: len(this) // 2] + ["native"] + this[len(this) // 2:]
            for t in order:
                r = one(tools[t], work, tools, args, analyze=rnd == 0 and t != "native")
                first.setdefault(t, r)
                put(dict(workload=w, tool=t, round=rnd, **r))
                print(f"{w:10} {t:18} r{rnd} wall={r['wall']:8.2f} cpu={r['user'] + r['sys']:8.2f} rss={r['rss_max'] >> 20:5}M sum={r['rss_sum'] >> 20:5}M "
                      f"out={r['bytes']:>11} rc={r['rc']} foreign={r['foreign']:.2f} {r.get('counts', '')} {r.get('analysis', '')}", flush=True)


if __name__ == "__main__":
    main()
