#!/usr/bin/env python3
"""Turns results.jsonl (from bench.py) into Markdown tables: report.py FILE...

Runs that were killed or crashed are marked and left out of the medians when the
tool also has good runs on that workload."""
import json
import statistics as st
import sys
from collections import OrderedDict

rows = [json.loads(x) for name in sys.argv[1:] for x in open(name)]
truth = OrderedDict()
runs = OrderedDict()
call = 0
for r in rows:
    if r["tool"] == "truth":
        truth[r["workload"]] = r["processes"]
        call += 1
        continue
    r["call"] = call  # a round only compares with natives of its own bench.py call
    runs.setdefault(r["workload"], OrderedDict()).setdefault(r["tool"], []).append(r)
works = list(runs)
hung = {}
for w in works:
    for t, rs in runs[w].items():
        good = [r for r in rs if r["rc"] >= 0 and not r["timeout"]]
        if good and len(good) < len(rs):
            hung[w, t] = len(rs) - len(good)
            runs[w][t] = good
tools = []
for w in works:
    tools += [t for t in runs[w] if t not in tools and t != "native"]
MB = 1 << 20


def native(w, key, r):
    same = [x for x in runs[w]["native"] if (x["call"], x["round"]) == (r["call"], r["round"])]
    return st.median(key(x) for x in same)


def wall(x): return x["wall"]
def cpu(x): return x["user"] + x["sys"]
def rss(x): return x["rss_max"]
def events(w): return sum(p["allocs"] + p["frees"] for p in truth[w])


def ratio(w, t, key):
    rs = runs[w].get(t)
    if not rs:
        return None
    return st.median(key(r) / native(w, key, r) for r in rs)


def bad(w, t):
    r = runs[w][t][0]
    if (w, t) in hung:
        return f"({hung[w, t]} killed)"
    return "T/O" if r["timeout"] else f"rc{r['rc']}" if r["rc"] else ""


def crashed(w, t):
    return runs[w][t][0]["rc"] < 0 and not runs[w][t][0]["timeout"]


def table(title, cell, note="", wall_only=False):
    print(f"\n### {title}\n")
    if note:
        print(note + "\n")
    print("| tool | " + " | ".join(works) + " |")
    print("|---|" + "--:|" * len(works))
    for t in tools:
        cells = []
        for w in works:
            if t not in runs[w]:
                cells.append("")
                continue
            b = bad(w, t)
            late = runs[w][t][0]["timeout"]
            c = "crash" if crashed(w, t) else (">" + cell(w, t) if wall_only else "-") if late else cell(w, t)
            cells.append(((c or "-") + (" " + b if b else "")).strip())
        print(f"| {t} | " + " | ".join(cells) + " |")


def f(x):
    return f"{x:.2f}" if x < 10 else f"{x:.1f}" if x < 100 else f"{x:.0f}"


print("### Workloads (true counts, from a counting LD_PRELOAD library)\n")
print("| workload | native wall s | CPU s | peak RSS MB | allocations | frees | events/s | requested MB | peak live MB | processes |")
print("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
for w in works:
    n = runs[w]["native"]
    p = truth[w]
    a = sum(x["allocs"] for x in p)
    nw = st.median(map(wall, n))
    print(f"| {w} | {nw:.2f} | {st.median(map(cpu, n)):.2f} | {st.median(map(rss, n)) / MB:.0f} | {a:,} | {sum(x['frees'] for x in p):,} | {events(w) / nw / 1e6:.1f} M | "
          f"{sum(x['bytes'] for x in p) / MB:.0f} | {max(x['peak_bytes'] for x in p) / MB:.1f} | {len(p)} |")

table("Wall time, ratio to native", lambda w, t: f(ratio(w, t, wall)), wall_only=True)
table("CPU time (user+sys, whole tree), ratio to native", lambda w, t: f(ratio(w, t, cpu)))
table("Extra wall ns per event (alloc or free)", lambda w, t: f"{(st.median(r['wall'] - native(w, wall, r) for r in runs[w][t])) / events(w) * 1e9:.0f}")
table("Extra CPU ns per event", lambda w, t: f"{(st.median(cpu(r) - native(w, cpu, r) for r in runs[w][t])) / events(w) * 1e9:.0f}")
table("Peak RSS, ratio to native (largest single process)", lambda w, t: f(ratio(w, t, rss)))
table("Peak RSS in MB: largest process / sum over the tree (10 Hz sample)", lambda w, t: f"{st.median(map(rss, runs[w][t])) / MB:.0f} / {st.median(r['rss_sum'] for r in runs[w][t]) / MB:.0f}")
table("Output on disk, KB (bytes per event)", lambda w, t: f"{st.median(r['bytes'] for r in runs[w][t]) / 1024:.0f} ({st.median(r['bytes'] for r in runs[w][t]) / events(w):.2f})" if runs[w][t][0]["bytes"] else "0")


def counted(w, t):
    c = next((r["counts"] for r in reversed(runs[w][t]) if "counts" in r), {})
    a = sum(x["allocs"] for x in truth[w])
    out = []
    if "allocs" in c:
        d = c["allocs"] - a
        out.append(f"{c['allocs']:,} ({d:+,})" if abs(d) < a * 0.001 else f"{c['allocs']:,} ({100 * d / a:+.1f}%)")
    live = a - sum(x["frees"] for x in truth[w])
    if "leaked" in c:
        out.append(f"live at exit {c['leaked']:,} (true {live:,})")
    for k in ("unreachable", "definite", "indirect", "possible"):
        if k in c:
            out.append(f"{k} {c[k]:,}")
    if "peak" in c:
        out.append(f"peak {c['peak'] if isinstance(c['peak'], str) else format(c['peak'] / MB, '.1f') + ' MB'}")
    for k in ("bad_json", "fatal", "incomplete"):
        if k in c:
            out.append(f"{k}!")
    return "; ".join(out)


table("What each tool reported (difference to the true number of allocations)", counted)


def analysis(w, t):
    a = next((r["analysis"] for r in runs[w][t] if "analysis" in r), None)
    if not a:
        return ""
    if "error" in a:
        return "error"
    return f"{a['wall']:.2f} s / {a['rss_max'] / MB:.0f} MB" + (f" rc{a['rc']}" if a["rc"] else "") + (" T/O" if a["timeout"] else "")


table("The tool's own analysis step: wall / peak RSS", analysis)
table("Number of measured runs, and spread of wall (min..max s)", lambda w, t: f"{len(runs[w][t])}: {min(map(wall, runs[w][t])):.2f}..{max(map(wall, runs[w][t])):.2f}")
